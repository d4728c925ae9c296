"""Stages that share GPUs: what each takes of a card, and what happens where that is too little."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.execution import demand, sharing
from flows.execution.gpu_slots import Card, GpuSlots, smallest_card
from flows.execution.local_engine import LocalEngine
from flows.execution.sharing import CARD, CONTEXT, WHOLE, Host, Share
from flows.execution.stage_run import OUT_OF_MEMORY, MemoryLacking, PipelineRun
from flows.planning.schedule import simulate
from flows.versioning.graph import Plan, Stage
from lori_core.pipeline import params_file

ROOT = Path(__file__).parents[2]
GB = 1e9
IDLE = Host(cores=64, busy=0.0, memory=1e12)
#: 80 GB, as the driver writes them.
SMI = """#!/bin/sh
echo '0, GPU-aa, 76294, 9.0'
echo '1, GPU-ab, 76294, 9.0'
"""


def stages(count: int) -> list[Stage]:
    return [Stage(f"train@t{number:02}", (), 1, "", ()) for number in range(count)]


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver that knows of two pretend GPUs of 80 GB; their number 0 alone may be used."""
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    return tool


def test_twelve_of_24_stages_of_6_gb_run_on_a_gpu_of_80_gb_at_once(two_cards: Path) -> None:
    card = smallest_card(["0"])
    assert card is not None
    assert card.memory == pytest.approx(80e9, rel=1e-5)
    all_of_them = stages(24)
    memory = {stage.name: 6 * GB for stage in all_of_them}
    shares = sharing.shares(memory, card.memory, IDLE.stages_per_gpu("auto", 1))
    # In the forecast's schedule …
    seconds = dict.fromkeys(memory, 10.0)
    made = simulate(all_of_them, seconds, 1, {n: s.parts for n, s in shares.items()}, begin=10.0)
    assert sorted(made.begins.values()) == [0.0] * 12 + [10.0] * 12
    # … and in a run: each of the first twelve waits for the others.
    slots, together = GpuSlots(["0"], threading.Event()), threading.Barrier(12)
    held, most = [0], [0]
    lock = threading.Lock()

    def hold(name: str) -> str:
        with slots.hold(1, shares[name].parts) as device:
            with lock:
                held[0] += 1
                most[0] = max(most[0], held[0])
            together.wait(60)
            with lock:
                held[0] -= 1
            return device

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(hold, memory)) == ["0"] * 24
    assert most == [12]


def test_a_part_is_what_a_stage_needs_and_no_less_than_the_machine_bears() -> None:
    memory = {"small": 1 * GB, "large": 40 * GB, "too large": 78 * GB, "none": 0.0}
    made = sharing.shares(memory, 80 * GB, 16)
    parts = {name: share.parts for name, share in made.items()}
    assert parts == {"small": 625, "large": 5500, "none": 625}
    assert made["small"].memory == 80 * GB / 16 - CONTEXT
    assert made["large"].memory == 80 * GB * 0.55 - CONTEXT
    for share, size in ((made["small"], 1 * GB), (made["large"], 40 * GB)):
        assert share.memory > size
    assert sharing.shares(memory, 80 * GB, 2)["small"].parts == CARD / 2
    assert sharing.shares(memory, 80 * GB, 1) == {}
    for most in range(2, 65):
        (small,) = sharing.shares({"small": 1e6}, 80 * GB, most).values()
        assert CARD // small.parts == most


@pytest.mark.parametrize(
    ("host", "setting", "gpus", "most"),
    [
        (IDLE, "auto", 1, 64),
        (IDLE, "auto", 8, 8),
        (Host(16, 0.75, 1e12), "auto", 1, 4),
        (Host(16, 1.0, 1e12), "auto", 1, 1),
        (Host(64, 0.0, 24e9), "auto", 2, 3),
        (Host(16, 1.0, 1e9), 5, 2, 5),
    ],
)
def test_a_machine_bears_a_stage_for_each_idle_core(
    host: Host, setting: int | str, gpus: int, most: int
) -> None:
    assert host.stages_per_gpu(setting, gpus) == most


def test_cores_are_those_that_a_container_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(sharing, "QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert sharing.cores() == 8
    for text, count in (("max 100000", 8), ("350000 100000", 3), ("50000 100000", 1)):
        quota.write_text(text + "\n")
        assert sharing.cores() == count


def test_threads_follow_from_the_machine_and_the_settings() -> None:
    found = [sharing.threads(s, g, c) for s, g, c in (("auto", 1, 16), ("auto", 8, 64), (1, 2, 16))]
    assert found == [4, 2, 8]
    assert sharing.threads(64, 8, 4) == 1


def test_cards_are_known_by_number_or_uuid(two_cards: Path) -> None:
    assert smallest_card(["1"]) == smallest_card(["GPU-ab"]) == Card(76294 * 2.0**20, True)
    two_cards.write_text("#!/bin/sh\necho '0, GPU-aa, 1000, 9.0'\necho '1, GPU-ab, 900, 7.5'\n")
    assert smallest_card(["0", "1"]) == Card(900 * 2.0**20, False)
    assert smallest_card(["2"]) is None
    assert smallest_card(["MIG-aa"]) is None
    two_cards.write_text("#!/bin/sh\nexit 9\n")
    assert smallest_card(["0"]) is None


def test_a_whole_card_waits_for_those_that_share_it() -> None:
    slots = GpuSlots(["0", "1"], threading.Event())
    with slots.hold(1, 4000) as one, slots.hold(1, 4000) as two:
        assert (one, two) == ("0", "1")  # where most is free
        with slots.hold(1, 6000) as third, ThreadPoolExecutor(1) as pool:
            assert third == "0"
            whole = slots.hold(1)
            waiting = pool.submit(whole.__enter__)
            assert not waiting.done()
            slots._stop.set()
            slots.wake()
            assert waiting.exception() is not None


def test_computing_side_by_side_takes_longer_and_starting_does_not() -> None:
    two = stages(2)
    half = {stage.name: CARD // 2 for stage in two}
    made = simulate(two, {stage.name: 30.0 for stage in two}, 1, half, begin=10.0)
    assert list(made.ends.values()) == [50.0, 50.0]
    assert simulate(two, {stage.name: 30.0 for stage in two}, 1, begin=10.0).seconds == 60.0
    assert simulate(two, {stage.name: 30.0 for stage in two}, 2, half, begin=10.0).seconds == 30.0


@pytest.mark.parametrize(
    "message",
    [
        "training step 7: a batch of 300 tokens does not fit into memory; lower …",
        "out of memory: end other processes, or lower the batch sizes",
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_every_way_of_lacking_memory_is_known(message: str) -> None:
    assert OUT_OF_MEMORY.search(message)
    assert not OUT_OF_MEMORY.search("train@math does not like it")


class Places:
    """Stands for the processes of stages: notes each, and lets some lack memory in a share."""

    def __init__(self, lacking: str) -> None:
        self.lacking = lacking
        self.ran: list[tuple[str, Share]] = []

    def stage(self, stage: str, *given: Any) -> Any:
        self.ran.append((stage, given[-1]))
        if stage == self.lacking and not given[-1].whole:
            raise MemoryLacking("out of memory")
        return SimpleNamespace(ran=False, seconds=1.0)


def test_a_stage_that_does_not_fit_after_all_runs_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.execution import tasks

    (tmp_path / "params.yaml").write_text("{}")
    run = PipelineRun(tmp_path, "a-run", print)
    run.slots = GpuSlots(["0"], run.stop)
    share = Share(CARD // 3, 5, threads=2)
    run.shares = {"train@a": share, "train@b": share, "calibrate@a": share}
    places = Places("train@a")
    run.place = cast("Any", places)
    said: list[str] = []
    logger = SimpleNamespace(info=print, warning=lambda *words: said.append(words[0] % words[1:]))
    monkeypatch.setattr(tasks, "get_run_logger", lambda: logger)
    monkeypatch.setattr(tasks, "task_run", SimpleNamespace(id="a-task"))
    states = [tasks.run_stage.fn(stage=s, gpus=1, run=run) for s in ("train@a", "train@b")]
    assert [state.name for state in states] == [tasks.UNCHANGED] * 2
    alone = Share(CARD, 0, threads=2)
    # What is true of one is taken to be true of its step; another step goes on sharing.
    assert places.ran == [("train@a", share), ("train@a", alone), ("train@b", alone)]
    assert run.shares["calibrate@a"] == share
    assert said == ["out of memory; running it again on a GPU of its own"]


@pytest.mark.parametrize(
    ("setting", "parts", "threads"),
    [
        ("", CARD, 0),
        ("cpu_stages: 1", CARD, 0),
        ("cpu_stages: 2", CARD // 2, 2),
        ("cpu_stages: 8", CARD // 8, 1),
    ],
)
def test_without_gpus_stages_share_the_cores(
    setting: str, parts: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sharing, "cores", lambda: 5)
    (tmp_path / "params.yaml").write_text(f"execution: {{{setting}}}\n")
    run = PipelineRun(tmp_path, "a-run", print)
    several = [*stages(2), Stage("several", (), 2, "", ()), Stage("report", (), 0, "", ())]
    plan = Plan(tuple(several), {stage.name: [""] for stage in several})
    shares = LocalEngine(run)._shares(plan)
    assert shares == dict.fromkeys(("train@t00", "train@t01", "several"), Share(parts, 0, threads))
    held = []
    with contextlib.ExitStack() as stack:
        for _ in range(CARD // parts):
            held.append(stack.enter_context(run.slots.hold(1, parts)))
        assert run.slots._fitting(parts) == []
    assert held == [""] * (CARD // parts)


def test_stages_at_once_on_the_cpu_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    named = []
    for number in (1, 3):
        (tmp_path / "params.yaml").write_text(f"execution: {{cpu_stages: {number}}}\n")
        named.append(LocalEngine(PipelineRun(tmp_path, "a-run", print)).where())
    assert named == ["the CPU, one at a time", "the CPU, 3 at a time"]


def test_a_stage_without_memory_runs_again_alone_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.execution import tasks

    (tmp_path / "params.yaml").write_text("{}")
    run = PipelineRun(tmp_path, "a-run", print)
    run.slots = GpuSlots([], run.stop)
    run.shares = {"train@a": Share(CARD // 2, 0, threads=2)}
    run.place = cast("Any", Places("train@a"))
    said: list[str] = []
    logger = SimpleNamespace(info=print, warning=lambda *words: said.append(words[0] % words[1:]))
    monkeypatch.setattr(tasks, "get_run_logger", lambda: logger)
    monkeypatch.setattr(tasks, "task_run", SimpleNamespace(id="a-task"))
    assert tasks.run_stage.fn(stage="train@a", gpus=1, run=run).name == tasks.UNCHANGED
    assert run.shares["train@a"] == Share(CARD, 0, threads=2)
    assert said == ["out of memory; running it again with no other stage beside it"]


def test_a_run_without_gpus_shares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "params.yaml").write_text("{}")
    run = PipelineRun(tmp_path, "a-run", print)
    plan = Plan(tuple(stages(3)), {stage.name: ["new stage"] for stage in stages(3)})
    monkeypatch.setattr(demand, "forecast_apart", None)  # is not called
    assert set(LocalEngine(run)._shares(plan).values()) == {WHOLE}
    assert WHOLE.variables() == {}


def test_a_run_asks_what_its_stale_stages_need(
    two_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text("execution: {share_gpus: 4}\n")
    run = PipelineRun(tmp_path, "a-run", print)
    several = [Stage("several", (), 2, "", ()), Stage("report", (), 0, "", ())]
    plan = Plan(
        (*stages(3), *several), {name: [""] for name in ("train@t01", "train@t02", "several")}
    )
    asked: list[Any] = []

    def ask(workspace: Path, names: list[str], card: Card, warn: Callable[[str], None]) -> Any:
        asked.append((workspace, names))
        return {"train@t01": 10 * GB}

    monkeypatch.setattr(demand, "forecast_apart", ask)
    monkeypatch.setattr(sharing, "this_host", lambda: Host(16, 1.0, 1e9))
    shares = LocalEngine(run)._shares(plan)
    assert asked == [(tmp_path, ["train@t01", "train@t02"])]
    assert {n: (s.parts, s.threads) for n, s in shares.items()} == {
        "train@t01": (2500, 4),
        "train@t02": (CARD, 4),
        "several": (CARD, 4),
    }
    assert shares["train@t01"].variables() == {
        "LORI_GPU_MEMORY": str(int(76294 * 2.0**20 / 4 - CONTEXT)),
        "LORI_THREADS": "4",
    }


def test_the_forecast_names_the_stages_whose_memory_is_known() -> None:
    params, _ = params_file.changed(ROOT / "profiles/smoke.yaml", None, [])
    names = ["train@math", "mask@math", "experiments/dvc.yaml:point@a", "evaluate_base"]
    found = demand.forecast(params, names, ROOT / "no-data", Card(80e9, True))
    assert list(found) == ["train@math", "mask@math", "evaluate_base"]
    assert 1e6 < found["train@math"] < 1e8
    assert found["mask@math"] == 0.0
    again = demand.forecast(params, names, ROOT / "no-data", Card(80e9, False))
    assert again["train@math"] >= found["train@math"]


def test_vllm_has_a_gpu_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "find_spec", lambda name: name)
    params, _ = params_file.changed(ROOT / "profiles/smoke.yaml", None, [])
    names = ["train@math", "evaluate_base"]
    found = demand.forecast(params, names, ROOT / "no-data", Card(80e9, True))
    assert list(found) == ["train@math"]


def test_what_cannot_be_forecast_is_not_shared(tmp_path: Path) -> None:
    said: list[str] = []
    assert demand.forecast_apart(tmp_path, ["train@a"], Card(80e9, True), said.append) == {}
    (line,) = said
    assert line.startswith("each stage has a GPU to itself: the memory that stages need cannot be")
    assert "params.yaml" in line
