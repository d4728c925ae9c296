"""The graph and what is stale, from DVC alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.execution.stage_process import reproduce
from flows.run import nothing_to_do, plan
from flows.versioning import graph, recorded_hashes
from flows.versioning.dvc import dvc_files
from lori_core.core.errors import InputError
from lori_core.core.files import yaml_input

EVERYTHING = ["prepare", "train@math", "train@nlu", "report"]


@pytest.fixture
def built(toy: Path) -> Path:
    """The toy workspace with every stage up to date."""
    for stage in EVERYTHING:
        assert reproduce(stage) == 0
    return toy


def test_a_plan_looks_once_at_each_file_of_dvcs(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy / "dvc.lock").write_text("schema: '2.0'\nstages:\n  prepare:\n    cmd: x\n")
    seen: list[str] = []
    loads = yaml_input.loads

    def counted(text: str, *given: Any, **named: Any) -> Any:
        seen.append(text)
        return loads(text, *given, **named)

    monkeypatch.setattr(dvc_files, "_valid", set())
    monkeypatch.setattr(
        dvc_files.yaml_input,
        "loads",
        lambda text, *a, **k: (seen.append(text), loads(text, *a, **k)),
    )
    graph.plan(toy)
    assert sorted(seen) == sorted((toy / name).read_text() for name in ("dvc.yaml", "dvc.lock"))
    (toy / "dvc.lock").write_text("schema: '2.0'\nstages: [\n")
    with pytest.raises(InputError, match=r"^dvc\.lock:"):
        graph.plan(toy)


def set_rate(workspace: Path, task: str, value: str) -> None:
    path = workspace / "params.yaml"
    before = f"{task}: {{training: {{learning_rate: 0.1"
    path.write_text(path.read_text().replace(before, before.replace("0.1", value)))


def test_stages_come_in_order_with_their_edges_and_gpus(toy: Path) -> None:
    stages = graph.plan(toy).stages
    assert [stage.name for stage in stages] == EVERYTHING
    assert [stage.dependencies for stage in stages] == [
        (),
        ("prepare",),
        ("prepare",),
        ("train@math", "train@nlu"),  # through the folder both write into
    ]
    assert [stage.gpus for stage in stages] == [1, 1, 1, 0]
    assert stages[1].outputs == ("metrics/train/math.json",)


def test_a_training_of_several_processes_needs_a_gpu_for_each(toy: Path) -> None:
    path = toy / "params.yaml"
    before = path.read_text()
    changed = before.replace("nlu: {training: {", "nlu: {training: {processes: 3, ")
    changed = f"training: {{processes: 2}}\n{changed}"
    assert [stage.gpus for stage in graph.plan(toy, params=changed).stages] == [1, 2, 3, 0]
    assert [stage.gpus for stage in graph.plan(toy).stages] == [1, 1, 1, 0]


def test_dependents_are_counted_directly_or_not() -> None:
    upstream = {"d": "", "a": "", "b": "a", "c": "ab", "e": "cd"}
    stages = [graph.Stage(name, tuple(names), 0, "", ()) for name, names in upstream.items()]
    plan = graph.Plan(tuple(stages), {})
    assert graph.dependents(plan) == {"a": 3, "b": 2, "c": 1, "d": 1, "e": 0}
    assert [stage.name for stage in graph.urgent_first(plan)] == ["a", "b", "d", "c", "e"]


def test_data_pins_are_no_stages(toy: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=toy, check=True)
    assert [stage.name for stage in graph.plan(toy).stages] == EVERYTHING
    assert graph.plan(toy).stages[0].dependencies == ()


def test_everything_is_new_at_first(toy: Path) -> None:
    assert graph.stale(toy) == {name: ["new stage"] for name in EVERYTHING}
    assert nothing_to_do(plan(toy)) is None
    assert recorded_hashes.output_hashes(toy, "prepare") == {}


def test_nothing_is_stale_after_a_run(built: Path, worked: Callable[[], list[str]]) -> None:
    assert graph.stale(built) == {}
    assert nothing_to_do(plan(built)) == "4 stages, all unchanged: nothing to run"
    assert worked() == EVERYTHING


def test_one_tasks_parameter_reruns_its_stages_and_what_follows(built: Path) -> None:
    set_rate(built, "math", "0.2")
    assert graph.stale(built) == {
        "train@math": ["parameter tasks.math.training.learning_rate changed (0.1 → 0.2)"],
        "report": ["after train@math"],
    }


@pytest.mark.parametrize(
    ("change", "stage", "reason"),
    [
        (
            lambda w: (w / "out/prepare.json").unlink(),
            "prepare",
            "output out/prepare.json is missing",
        ),
        (lambda w: (w / "data/in.txt").write_text("other"), "prepare", "input data/in.txt changed"),
        (
            lambda w: (w / "metrics/train/nlu.json").write_text("{}"),
            "train@nlu",
            "output metrics/train/nlu.json was changed",
        ),
        (
            lambda w: (w / "dvc.yaml").write_text(
                (w / "dvc.yaml").read_text().replace("toy.py prepare", "toy.py  prepare")
            ),
            "prepare",
            "command changed",
        ),
    ],
)
def test_reasons(built: Path, change: object, stage: str, reason: str) -> None:
    assert callable(change)
    change(built)
    assert reason in graph.stale(built)[stage]


def test_output_hashes_are_those_of_the_lock_file(built: Path) -> None:
    hashes = recorded_hashes.output_hashes(built, "train@nlu")
    assert list(hashes) == ["metrics/train/nlu.json"]
    assert len(hashes["metrics/train/nlu.json"]) == 32
    assert recorded_hashes.hashes_text({"b": "2", "a": "1"}) == "a=1 b=2"


def test_a_folder_without_dvc_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no DVC workspace"):
        graph.plan(tmp_path)


def test_a_failing_stage_has_its_commands_exit_code(toy: Path) -> None:
    (toy / "fail-prepare").write_text("2")
    assert reproduce("prepare") == 2


def test_an_unknown_stage_is_dvcs_error(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce("nowhere") == 255
    assert "nowhere" in capsys.readouterr().err


def test_the_cheap_part_imports_neither_prefect_nor_mlflow() -> None:
    code = (
        "import sys, flows.run, flows.versioning.graph; "
        "sys.exit(str([m for m in ('prefect', 'mlflow', 'dvc', 'torch') if m in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stderr.strip() == "[]"


def test_a_workspace_that_dvc_may_not_write_to_is_an_input_error(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", f"{toy}/.dvc/tmp/lock")

    monkeypatch.setattr(Repo, "__init__", refuse)
    with pytest.raises(InputError, match=r"\.dvc/tmp/lock: cannot be written, which DVC needs"):
        graph.plan(toy)
