"""An experiment through its command, the flow and DVC."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = ("lori_core", "studies", "flows")
SMALL = [
    "--set", "experiments.seeds=[1]",
    "--set", "experiments.scopes=[model, matrix]",
    "--set", "experiments.learning_rates={}",
]  # fmt: skip


def lori(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lori_cli", *arguments],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    from dvc.repo import Repo

    folder = tmp_path / "workspace"
    folder.mkdir()
    for name in (*LINKED, "profiles", "dvc.yaml", "params.yaml"):
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    Repo.init(str(folder), no_scm=True).close()
    return folder


def files(workspace: Path) -> dict[str, bytes]:
    return {
        path.relative_to(workspace).as_posix(): path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file() and ".dvc" not in path.parts and ".lori" not in path.parts
    }


def test_a_plan_changes_nothing(workspace: Path) -> None:
    before = files(workspace)
    done = lori(workspace, "experiment", "granularity", "--profile", "smoke", *SMALL, "--plan")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("run ")]) == 7
    (forecast,) = [line for line in done.stdout.splitlines() if line.startswith("forecast ")]
    assert "(3 trainings " in forecast
    assert ", 2 scorings " in forecast
    assert files(workspace) == before
    assert not (workspace / "experiments").exists()


@pytest.mark.real
def test_an_experiment_runs_once_and_both_ways_give_the_same(workspace: Path) -> None:
    first = lori(workspace, "experiment", "granularity", "--profile", "smoke", *SMALL)
    assert first.returncode == 0, first.stderr
    assert "3 trainings, 2 scorings" in first.stdout
    assert "experiments/report/index.html" in first.stdout
    assert (workspace / "experiments" / "report" / "granularity.png").stat().st_size > 1000
    metrics = workspace / "metrics" / "experiments" / "granularity.json"
    rows = json.loads(metrics.read_text())["rows"]
    again = lori(workspace, "experiment", "granularity", "--here")
    assert again.returncode == 0, again.stderr
    assert "all unchanged: nothing to run" in again.stdout
    shutil.rmtree(workspace / "artifacts" / "experiments")
    shutil.rmtree(workspace / ".dvc" / "cache")
    (workspace / "experiments" / "dvc.lock").unlink()
    here = lori(workspace, "experiment", "granularity", "--here")
    assert here.returncode == 0, here.stderr
    assert json.loads(metrics.read_text())["rows"] == rows
    done = lori(workspace, "experiment", "granularity", "--plan")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("run ", "keep"))]
    assert len(lines) == 3 + 2 + 2
    assert all(line.startswith("keep") for line in lines)
