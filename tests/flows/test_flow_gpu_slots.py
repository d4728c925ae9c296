"""GPUs and turns, and the lock between pipelines."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.execution.gpu_slots import (
    LIGHT_STAGES,
    GpuSlots,
    StoppedError,
    allowed_gpus,
    check_room,
    visible_gpus,
)
from flows.lock import pipeline_lock, pipeline_runs
from flows.versioning.graph import Stage
from lori_core.core.errors import InputError


@pytest.mark.parametrize(
    ("variable", "gpus"), [("", []), ("-1", []), ("0", ["0"]), ("2, GPU-8f", ["2", "GPU-8f"])]
)
def test_gpus_are_what_the_variable_names(
    variable: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == gpus
    assert allowed_gpus(1) == gpus[:1]
    assert allowed_gpus("auto") == gpus


def test_gpus_are_counted_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1'\necho 'GPU 1: B'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert visible_gpus() == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus() == []


def test_each_holder_has_its_own_gpus() -> None:
    slots = GpuSlots(["0", "1", "2"], threading.Event())
    with slots.hold(1) as one, slots.hold(2) as two:
        assert (one, two) == ("0", "1,2")
    with slots.hold(8) as every:
        assert sorted(every.split(",")) == ["0", "1", "2"]


def test_a_stage_that_could_never_start_is_refused() -> None:
    stages = [Stage("train@math", (), 4, "", ()), Stage("report", (), 0, "", ())]
    check_room(stages, 4, "this machine")
    check_room(stages, 0, "this machine")  # without GPUs, stages take turns
    with pytest.raises(InputError) as caught:
        check_room(stages, 2, "this machine (execution.gpus)")
    assert str(caught.value) == (
        "training.processes: train@math needs 4 GPUs at once, a GPU for each process, and "
        "this machine (execution.gpus) has 2; lower it"
    )


def test_without_gpus_there_is_one_turn_and_light_stages_beside_it() -> None:
    stop = threading.Event()
    slots = GpuSlots([], stop)
    with slots.hold(1) as devices, slots.hold(0), slots.hold(0):
        assert devices == ""
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(slots.hold(gpus).__enter__) for gpus in (1, 0)]
            stop.set()
            slots.wake()
            assert all(isinstance(future.exception(), StoppedError) for future in waiting)
    assert LIGHT_STAGES == 2


def test_a_freed_gpu_goes_to_who_waits() -> None:
    slots = GpuSlots(["7"], threading.Event())

    def work() -> str:
        with slots.hold(1) as devices:
            return devices

    with ThreadPoolExecutor(4) as pool:
        with slots.hold(1):
            waiting = [pool.submit(work) for _ in range(4)]
        assert [future.result(timeout=30) for future in waiting] == ["7"] * 4


def test_the_stage_that_most_others_depend_on_starts_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots = GpuSlots(["7"], threading.Event())
    started, waits = [], threading.Semaphore(0)
    wait_for = slots._changed.wait_for

    def told(predicate: Callable[[], bool]) -> bool:
        waits.release()
        return wait_for(predicate)

    def work(name: str, dependents: int) -> None:
        with slots.hold(1, dependents=dependents):
            started.append(name)

    stages = {"few": 1, "two": 1, "many": 9, "none": 0}
    with ThreadPoolExecutor(len(stages)) as pool, slots.hold(1):
        monkeypatch.setattr(slots._changed, "wait_for", told)
        for name, dependents in stages.items():
            pool.submit(work, name, dependents)
            waits.acquire()
        with slots.hold(0):  # of another kind: it waits for none of them
            pass
    assert started == ["many", "few", "two", "none"]


def test_a_stage_that_does_not_fit_holds_up_no_other() -> None:
    slots = GpuSlots(["0", "1"], threading.Event())
    with slots.hold(1), ThreadPoolExecutor(1) as pool:
        both = pool.submit(slots.hold(2, dependents=9).__enter__)
        with slots.hold(1) as devices:
            assert devices == "1"
        slots._stop.set()
        slots.wake()
        assert isinstance(both.exception(), StoppedError)


def test_one_process_may_enter_its_lock_again(tmp_path: Path) -> None:
    assert not pipeline_runs(tmp_path)
    with pipeline_lock(tmp_path), pipeline_lock(tmp_path):
        assert not pipeline_runs(tmp_path)


def test_a_second_pipeline_waits_and_says_for_whom(tmp_path: Path) -> None:
    holder = (
        "import sys; from pathlib import Path; from flows.lock import pipeline_lock\n"
        f"with pipeline_lock(Path({str(tmp_path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert pipeline_runs(tmp_path)
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            process.stdin.close()  # type: ignore[union-attr]

        with pipeline_lock(tmp_path, say):
            assert said == [
                f"another pipeline runs in this workspace (process {process.pid}); waiting for it"
            ]
