"""A toy DVC workspace: the same shape as the real pipeline, a few milliseconds a stage."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from flows.environment import quiet_environment
from lori_core.core.processes import forked

quiet_environment()
# What a toy stage imports is there at once; a fork server would import for nothing.
os.environ.setdefault(forked.VARIABLE, "")

#: Deprecations inside Prefect, MLflow and DVC, none of them ours to mend.
THIRD_PARTY = [
    "ignore::DeprecationWarning:(prefect|mlflow|dvc|dvc_data|starlette|fastapi|websockets).*",
    "ignore::ResourceWarning",
    # Of MLflow's own classes, when mlflow.pyfunc is imported.
    "ignore:.*Any type hint is inferred:UserWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            for line in THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(line))


TOY = dedent(
    """
    import json, os, sys, time
    from pathlib import Path

    stage, out = sys.argv[1], Path(sys.argv[2])
    with open("runs.log", "a") as log:
        log.write(stage + "\\n")
    rows = Path(os.environ.get("LORI_ROWS") or f".lori/rows/{stage}/plain-{os.getpid()}.jsonl")
    rows.parent.mkdir(parents=True, exist_ok=True)

    def row(kind, **fields):
        with rows.open("a") as file:
            file.write(json.dumps({"type": kind, "time": time.time(), **fields}) + "\\n")

    row("start", stage=stage, pid=os.getpid())
    row("params", values={"training": {"learning_rate": 0.1, "modules": ["q", "v"]}})
    row("dataset", name="toy", digest="a" * 64, source="data/in.txt", rows=3)
    for step in range(3):
        row("metrics", values={"loss": 1.0 / (step + 1)}, step=step)
    print(stage, "works", flush=True)
    failure = Path(f"fail-{stage}")
    if failure.exists():
        code, _, times = failure.read_text().partition(" ")
        left = int(times or 99) - 1
        failure.write_text(f"{code} {left}") if left else failure.unlink()
        row("error", message=f"{stage} does not like it", exit_code=int(code))
        sys.exit(int(code))
    out.parent.mkdir(parents=True, exist_ok=True)
    parameters = Path("params.yaml").read_text()
    out.write_text(json.dumps({"stage": stage, "parameters": parameters}))
    row("metrics", values={"score.toy": 0.5}, step=None)
    row("artifact", path=str(out))
    row("end")
    """
)

DVC = dedent(
    """
    stages:
      prepare:
        cmd: {python} toy.py prepare out/prepare.json
        deps: [data/in.txt]
        params: [shared]
        outs: [out/prepare.json]
        meta: {{gpus: 1}}
      train:
        matrix:
          task: [math, nlu]
        cmd: {python} toy.py train@${{item.task}} metrics/train/${{item.task}}.json
        deps: [out/prepare.json]
        params: ["tasks.${{item.task}}"]
        outs: ["metrics/train/${{item.task}}.json"]
        meta: {{gpus: 1}}
      report:
        cmd: {python} toy.py report report/summary.json
        deps: [metrics/train/]
        outs: [report/summary.json]
        meta: {{gpus: 0}}
    """
)

PARAMS = """\
shared: 1
tasks:
  math: {training: {learning_rate: 0.1, epochs: 2}}
  nlu: {training: {learning_rate: 0.1, epochs: 2}}
execution: {retries: 1}
"""


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("toy")
    Repo.init(str(folder), no_scm=True).close()
    (folder / "toy.py").write_text(TOY)
    (folder / "dvc.yaml").write_text(DVC.format(python=sys.executable))
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "data").mkdir()
    (folder / "data" / "in.txt").write_text("one\ntwo\nthree\n")
    return folder


@pytest.fixture
def toy(toy_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose stages have not run yet; the current folder of the test."""
    workspace = tmp_path / "workspace"
    shutil.copytree(toy_template, workspace)
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return workspace


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database, migrated once: the migration takes seconds."""
    from flows.tracking.mlflow_store import prepare

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare(f"sqlite:///{path}")
    return path


@pytest.fixture
def folder(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a workspace, with an MLflow database; the current folder."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    shutil.copy(empty_database, workspace / "mlflow.db")
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return workspace


@pytest.fixture(scope="session")
def measured_template(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    from measured import Measured

    folder = tmp_path_factory.mktemp("measured") / "workspace"
    Measured(folder)
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def measured(measured_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished workspace of the test's own, with all that a gate can judge by; the current."""
    folder = tmp_path / "workspace"
    shutil.copytree(measured_template, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def tracked(toy: Path, empty_database: Path) -> Path:
    """The toy workspace with an MLflow database that is ready."""
    shutil.copy(empty_database, toy / "mlflow.db")
    return toy


@pytest.fixture
def worked(toy: Path) -> Callable[[], list[str]]:
    """Return the stages that really worked so far, in order."""

    def stages() -> list[str]:
        log = toy / "runs.log"
        return log.read_text().split() if log.exists() else []

    return stages


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect server for this session: it takes seconds to start."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
