"""A signal while the flow runs: Prefect, MLflow and the workspace afterwards, and the next run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.versioning.dvc.dvc_repo import dead_locks, read_rwlock, rwlock_file
from lori_core.core.processes import stopping
from lori_core.pipeline import params_file

pytestmark = pytest.mark.real

#: A stage that sends a signal to whoever is named in a file, and never ends by itself.
STOPS = """
if Path("stop").exists():
    number, pid = map(int, Path("stop").read_text().split())
    Path("stop").unlink()
    os.kill(pid, number)
    time.sleep(100)
"""


@pytest.fixture
def run(tracked: Path, prefect_api: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Run the pipeline in the toy workspace as `lori run` does; return the flow's state."""
    import flows.pipeline as module

    monkeypatch.setattr("flows.execution.tasks.PULL", ("platform",))
    monkeypatch.setattr(params_file, "apply", lambda *_: [])
    monkeypatch.setattr(module, "RETRY_DELAY_SECONDS", 0)
    toy = tracked / "toy.py"
    toy.write_text(toy.read_text().replace("failure = Path", f"{STOPS}\nfailure = Path", 1))
    return lambda: stopping.in_thread(lambda: module.pipeline(return_state=True))


def states(name: str) -> list[str]:
    """Return the names of the states of Prefect's flow runs of this workspace, newest first."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=int(name))
    return [str(run.state and run.state.name) for run in runs]


def mlflow_states(workspace: Path) -> dict[str, str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    runs = client.search_runs(["1"], order_by=["attributes.start_time ASC"])
    return {run.data.tags["lori.stage"]: run.info.status for run in runs}


def stages(workspace: Path) -> list[str]:
    """Return the processes that are still at work in a workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd() == str(workspace):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_is_cancelled_and_the_next_goes_on(
    number: signal.Signals,
    run: Callable[[], Any],
    tracked: Path,
    worked: Callable[[], list[str]],
) -> None:
    (tracked / "stop").write_text(f"{number} {os.getpid()}")
    with stopping.handled(owned=False):
        with pytest.raises(stopping.Stopped):
            run()
        assert stopping.stop_exit_code() == 128 + number
    assert states("1") == ["Cancelled"]
    assert mlflow_states(tracked) == {"pipeline": "KILLED", "prepare": "KILLED"}
    assert stages(tracked) == []
    assert worked() == ["prepare"]

    with stopping.handled(owned=False):
        assert run().is_completed()
    assert sorted(worked()) == ["prepare", "prepare", "report", "train@math", "train@nlu"]
    assert mlflow_states(tracked)["report"] == "FINISHED"


def test_a_stopped_run_leaves_no_path_lock_of_a_killed_stage(
    tracked: Path, prefect_api: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.pipeline as module

    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    rwlock = rwlock_file(tracked)

    def killed(*_: Any) -> None:
        rwlock.parent.mkdir(parents=True, exist_ok=True)
        held = {"write": {"out/a": {"pid": gone.pid, "cmd": "dvc repro"}}, "read": {}}
        rwlock.write_text(json.dumps(held))
        raise stopping.Stopped

    monkeypatch.setattr(params_file, "apply", lambda *_: [])
    monkeypatch.setattr(module, "_run", killed)
    assert module.pipeline(return_state=True).name == "Cancelled"
    assert list(dead_locks(read_rwlock(rwlock) or {})) == []


def test_a_run_that_is_stopped_before_it_began_runs_nothing(
    run: Callable[[], Any], tracked: Path, worked: Callable[[], list[str]]
) -> None:
    from prefect.states import Cancelled

    import flows.pipeline as module

    def told() -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        while stopping.stop_exit_code() is None:
            os.sched_yield()
        return module.pipeline(return_state=True)

    made: list[Any] = []
    with stopping.handled(owned=False), pytest.raises(stopping.Stopped):
        stopping.in_thread(lambda: made.append(told()))
    assert made[0].type == Cancelled().type
    assert worked() == []
