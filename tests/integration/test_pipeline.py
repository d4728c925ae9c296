"""The whole pipeline through the real engines, on a two-layer model, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
LORI = [sys.executable, "-m", "lori_cli"]
pytestmark = pytest.mark.real


#: Whose variables are not passed on.
REMOVED = ("PREFECT_", "MLFLOW_", "DVC_", "LORI_FORK_SERVER")


def environment(home: Path) -> dict[str, str]:
    """Return an environment without a user's settings and with nothing activated."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(REMOVED)}
    return kept | {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "LORI_CACHE": str(home / "cache"),
        "PREFECT_HOME": str(home / "prefect"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project in a git repository of its own."""
    folder = tmp_path_factory.mktemp("pipeline") / "project"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    made = ("dvc.lock", "data.dvc", "metrics/")
    for name in filter(None, tracked):
        if (ROOT / name).is_file() and not name.startswith(made):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder.parent / "home").mkdir()
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def lori(workspace: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [*LORI, *arguments],
        cwd=workspace,
        env=environment(workspace.parent / "home"),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def dvc(workspace: Path, *arguments: str) -> str:
    env = environment(workspace.parent / "home")
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def finished(workspace: Path) -> Path:
    """Run the smoke profile once."""
    lori(workspace, "run", "--profile", "smoke")
    return workspace


def adapters(workspace: Path) -> dict[str, str]:
    """Return the SHA-256 of every adapter and mask."""
    return {
        str(path.relative_to(workspace)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((workspace / "artifacts").rglob("*.safetensors"))
    }


def stages_with_rows(workspace: Path) -> dict[str, int]:
    """Return how often each stage's command has run."""
    folder = workspace / ".lori" / "rows"
    return {
        path.name: len(list(path.glob("*.jsonl")))
        for path in folder.iterdir()
        if path.name != "pipeline"
    }


def test_everything_comes_out(finished: Path) -> None:
    assert len(adapters(finished)) == 4 * 3 + 3 + 2
    summary = json.loads((finished / "report" / "summary.json").read_text())
    assert len(summary["table"]) == 8
    assert (finished / "report" / "index.html").is_file()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=finished, capture_output=True, text=True, check=True
    ).stdout
    changed = {line[3:].split("/")[0] for line in status.splitlines()}
    assert changed <= {"params.yaml", "data.dvc", "dvc.lock", "metrics"}


def test_a_second_run_runs_nothing(finished: Path) -> None:
    before = stages_with_rows(finished)
    assert "33 stages, all unchanged: nothing to run" in lori(finished, "run")
    assert stages_with_rows(finished) == before


def test_dvc_works_as_its_users_expect(finished: Path) -> None:
    assert json.loads(dvc(finished, "status", "--json")) == {}
    assert "up to date" in dvc(finished, "repro")
    assert "train@math" in dvc(finished, "dag", "--dot")
    shown = json.loads(dvc(finished, "metrics", "show", "--json"))[""]["data"]
    assert "metrics/train/math.json" in shown


def test_mlflow_has_a_parent_and_a_child_for_each_stage(finished: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lori-smoke")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=200))
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) - len(children) == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_stage = {run.data.tags["lori.stage"]: run for run in children}
    assert len(by_stage) == len(children) == 33
    train = by_stage["train@math"]
    assert train.data.params["training.learning_rate"] == "0.01"
    assert train.data.metrics["trainable_parameters"] > 0
    assert [d.dataset.name for d in train.inputs.dataset_inputs]
    steps = client.get_metric_history(train.info.run_id, "loss")
    assert [metric.step for metric in steps] == [1, 2, 3, 4]


def test_a_changed_learning_rate_runs_its_stages_and_their_descendants_only(finished: Path) -> None:
    before = stages_with_rows(finished)
    lori(finished, "run", "--set", "tasks.math.training.learning_rate=0.02")
    after = stages_with_rows(finished)
    ran = {name for name, count in after.items() if count > before.get(name, 0)}
    assert ran == {
        "train@math",
        "continual@math",
        "interference",
        "search@concat",
        "search@linear",
        "merge@concat",
        "merge@linear",
        "evaluate_adapters@math",
        "evaluate_continual@math",
        "evaluate_merged@concat",
        "evaluate_merged@linear",
        "excess@concat",
        "excess@linear",
        "report",
    }


def test_a_killed_pipeline_resumes_and_ends_with_the_same_bytes(finished: Path) -> None:
    change = ("--set", "tasks.math.training.epochs=30")
    lori(finished, "run", *change)
    expected = adapters(finished)
    lori(finished, "run", "--set", "tasks.math.training.epochs=1")
    for path in (finished / ".dvc" / "cache" / "runs").glob("*"):
        shutil.rmtree(path)  # or DVC would bring back what the first run made
    process = subprocess.Popen(
        [*LORI, "run", *change],
        cwd=finished,
        env=environment(finished.parent / "home"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoints = finished / ".lori" / "checkpoints" / "train@math"
    while not list(checkpoints.glob("*/checkpoint-*/trainer_state.json")):
        assert process.poll() is None
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=30)
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert list(checkpoints.glob("*/checkpoint-*"))
    assert "resuming from checkpoint-" in lori(finished, "run")
    assert adapters(finished) == expected


def test_bad_input_stops_before_anything_runs(finished: Path) -> None:
    before = stages_with_rows(finished)
    text = lori(finished, "run", "--set", "tasks.math.source=bundled-maths", code=2)
    assert "source 'bundled-maths' is unknown; did you mean 'bundled-math'" in text
    assert stages_with_rows(finished) == before
    lori(finished, "run", "--set", "tasks.math.source=bundled-math")


def test_a_run_can_end_with_the_gate(finished: Path) -> None:
    def gated(most: str) -> str:
        rule = f"gate.rules={{size_mb: {{at_most: {most}}}}}"
        return lori(finished, "run", "--gate", "--set", rule).partition("\nGate:\n")[2]

    refused = gated("0.001")
    assert refused.startswith("BROKEN  size_mb: ")
    assert "\nartifacts/merged/concat is refused; there is no champion yet\n" in refused
    promoted = gated("50.0")
    assert promoted.startswith("holds   size_mb: ")
    first = "lori-smoke version 1 is champion: the first, there was none before it"
    assert f"\n{first}\n" in promoted
