"""The flow itself, on real Prefect, DVC and MLflow, over the toy workspace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

EVERYTHING = ["prepare", "train@math", "train@nlu", "report"]

Worked = Callable[[], list[str]]


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def run(tracked: Path, prefect_api: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the pipeline in the toy workspace and return the final state of the flow."""
    import flows.pipeline as module

    monkeypatch.setattr(module, "PULL", ("platform",))
    monkeypatch.setattr(module, "RETRY_DELAY_SECONDS", 0)
    return lambda **parameters: module.pipeline(**parameters, return_state=True)


def failure_code(state: Any) -> int:
    from flows.pipeline import failure_of

    return failure_of(state).exit_code


def mlflow_runs(workspace: Path, condition: str = "") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace}/mlflow.db")
    order = ["attributes.start_time DESC"]
    return list(client.search_runs(["1"], condition, order_by=order))


def test_stages_run_once_in_order_and_are_tracked(
    run: Callable[..., Any], worked: Worked, tracked: Path
) -> None:
    assert run().is_completed()
    done = worked()
    assert sorted(done) == sorted(EVERYTHING)
    assert (done[0], done[-1]) == ("prepare", "report")
    (parent,) = mlflow_runs(tracked, "tags.`lori.stage` = 'pipeline'")
    children = mlflow_runs(tracked, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(child.data.tags["lori.stage"] for child in children) == sorted(EVERYTHING)
    assert {child.info.status for child in [parent, *children]} == {"FINISHED"}
    assert parent.data.params["tasks.math.training.learning_rate"] == "0.1"
    assert all(child.data.tags["prefect.task_run_id"] for child in children)
    assert all("=" in child.data.tags["dvc.outs"] for child in children)

    # What has not changed is not started again, and the new parent says who made it.
    params = tracked / "params.yaml"
    params.write_text(
        params.read_text().replace(
            "math: {training: {learning_rate: 0.1", "math: {training: {learning_rate: 0.2"
        )
    )
    assert run().is_completed()
    assert worked() == [*done, "train@math", "report"]
    second = mlflow_runs(tracked, "tags.`lori.stage` = 'pipeline'")[0]
    makers = {child.data.tags["lori.stage"]: child.info.run_id for child in children}
    assert second.data.tags["lori.skipped.prepare"] == makers["prepare"]
    assert second.data.tags["lori.skipped.train.nlu"] == makers["train@nlu"]
    assert "lori.skipped.train.math" not in second.data.tags


def test_a_crash_is_retried_once(run: Callable[..., Any], worked: Worked, toy: Path) -> None:
    (toy / "fail-prepare").write_text("1 1")
    assert run().is_completed()
    assert worked()[:2] == ["prepare", "prepare"]
    assert len(worked()) == 5


def test_a_stage_that_keeps_failing_stops_only_what_needs_it(
    run: Callable[..., Any], worked: Worked, toy: Path
) -> None:
    (toy / "fail-train@math").write_text("1")
    state = run()
    assert state.is_failed()
    assert state.message == "train@math: train@math does not like it"
    assert failure_code(state) == 1
    assert worked().count("train@math") == 2
    assert worked().count("train@nlu") == 1
    assert "report" not in worked()


def test_bad_input_is_not_retried(run: Callable[..., Any], worked: Worked, toy: Path) -> None:
    (toy / "fail-prepare").write_text("2")
    state = run()
    assert state.message == "prepare: prepare does not like it"
    assert failure_code(state) == 2
    assert worked() == ["prepare"]
    (run_of_stage,) = mlflow_runs(toy, "tags.`lori.stage` = 'prepare'")
    assert run_of_stage.info.status == "FAILED"


def test_a_failing_pull_stops_everything(
    run: Callable[..., Any], worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.pipeline.PULL", ("no_such_module",))
    state = run()
    assert state.is_failed()
    assert "no_such_module" in state.message
    assert worked() == []


def test_results_become_artifacts(run: Callable[..., Any], tracked: Path) -> None:
    from prefect.artifacts import Artifact

    script = tracked / "toy.py"
    summary = {"metrics": {"score.merged.math": 0.25}, "table": [{"method": "base", "math": 0.1}]}
    script.write_text(
        script.read_text()
        + f"\nif stage == 'report':\n    out.write_text({json.dumps(json.dumps(summary))})\n"
        + "    Path('report/summary.md').write_text('# Results')\n"
    )
    assert run().is_completed()
    page, table = Artifact.get("lori-results"), Artifact.get("lori-table")
    assert page is not None
    assert page.data == "# Results"
    assert table is not None
    assert json.loads(str(table.data)) == summary["table"]
    (parent,) = mlflow_runs(tracked, "tags.`lori.stage` = 'pipeline'")
    assert parent.data.metrics == {"score.merged.math": 0.25}


def test_a_wrong_setting_is_bad_input(run: Callable[..., Any], toy: Path, worked: Worked) -> None:
    (toy / "dvc.yaml").write_text("stages: [")
    state = run()
    assert failure_code(state) == 2
    assert worked() == []


def test_a_killed_starter_takes_its_child_along() -> None:
    starter = (
        "import subprocess, sys; from flows.environment import child_environment; "
        "subprocess.Popen([sys.executable, '-m', 'lori_core.process', 'code'], "
        "stdin=subprocess.PIPE, env=dict(child_environment())).wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the child's banner: it is up and has asked the kernel
        family = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
        process.stdout.read()  # ends when the last holder of the pipe is gone
    assert [pid for pid in family if Path(f"/proc/{pid}").exists() and _running(pid)] == []


def _running(pid: str) -> bool:
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stopping_ends_the_whole_group(tmp_path: Path) -> None:
    from flows.subprocesses import run_lines

    stop, seen = threading.Event(), list[str]()

    def line(text: str) -> None:
        seen.append(text)
        stop.set()

    command = ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"]
    code = run_lines(command, folder=tmp_path, environment=os.environ, line=line, stop=stop)
    assert code == -signal.SIGTERM
    (pid,) = seen
    assert not Path(f"/proc/{pid}").exists() or not _running(pid)
