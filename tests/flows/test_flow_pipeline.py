"""The flow itself, on real Prefect, DVC and MLflow, over the toy workspace."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from flows.execution.stage_run import Cancelled, PipelineRun
from flows.tracking.rows import last_end
from lori_core.pipeline import params_file

pytestmark = pytest.mark.real

EVERYTHING = ["prepare", "train@math", "train@nlu", "report"]

Worked = Callable[[], list[str]]


def changes_only(path: Path, profile: str | None, overrides: list[str]) -> list[str]:
    """The toy's params.yaml is none of ours, so that defaults cannot be written into it."""
    return APPLY(path, profile, overrides) if profile or overrides else []


APPLY = params_file.apply


@pytest.fixture
def run(tracked: Path, prefect_api: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the pipeline in the toy workspace and return the final state of the flow."""
    import flows.pipeline as module

    monkeypatch.setattr("flows.execution.tasks.PULL", ("platform",))
    monkeypatch.setattr(params_file, "apply", changes_only)
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


def test_what_there_is_not_is_refused_before_anything_starts(
    run: Callable[..., Any], worked: Worked, tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.execution.tasks.PULL", ("no_such_module",))
    state = run(tasks=["maths"])
    assert (
        state.message == "tasks: task 'maths' is unknown; did you mean 'math'? (allowed: math, nlu)"
    )
    assert failure_code(state) == 2
    state = run(overrides=["tasks"])  # by its type
    assert "overrides" in str(state.result(raise_on_failure=False))
    assert worked() == []
    assert mlflow_runs(tracked) == []


def test_part_of_the_pipeline_can_be_asked_for(run: Callable[..., Any], worked: Worked) -> None:
    assert run(stages=["train@nlu"]).is_completed()
    assert worked() == ["prepare", "train@nlu"]
    assert run(tasks=["math"]).is_completed()
    assert worked() == ["prepare", "train@nlu", "train@math"]


def test_a_run_that_finds_nothing_changed_says_so_and_judges_nothing(
    run: Callable[..., Any], worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run().message == "all stages are up to date"
    done = worked()
    monkeypatch.setattr("flows.serving.gate.run_gate", None)
    assert run(gate=True).message == "nothing changed"
    assert worked() == done


def test_data_that_the_pull_brings_is_trained_on(
    run: Callable[..., Any], worked: Worked, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run().is_completed()
    done = worked()
    (toy / "newer.py").write_text(
        "from pathlib import Path\nfrom flows.versioning.data import pin\n"
        "Path('data/in.txt').write_text('four')\npin(Path.cwd())\n"
    )
    monkeypatch.setattr("flows.execution.tasks.PULL", ("newer",))
    assert run().message == "all stages are up to date"
    # The toy's stage makes the same of any data, so those after it have nothing new to do.
    assert worked()[len(done) :] == ["prepare"]


def test_a_failing_pull_stops_everything(
    run: Callable[..., Any], worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.execution.tasks.PULL", ("no_such_module",))
    state = run()
    assert state.is_failed()
    assert "no_such_module" in state.message
    assert worked() == []


def test_results_become_artifacts(run: Callable[..., Any], tracked: Path) -> None:
    from prefect.artifacts import Artifact

    script = tracked / "toy.py"
    rows = [{"math": 0.1, "model": "base"}]
    summary = {"metrics": {"score.merged.math": 0.25}, "columns": ["model", "math"], "table": rows}
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
    assert str(table.data) == json.dumps([{"model": "base", "math": 0.1}])
    (parent,) = mlflow_runs(tracked, "tags.`lori.stage` = 'pipeline'")
    assert parent.data.metrics == {"score.merged.math": 0.25}
    # A run that changes nothing adds nothing.
    assert run().message == "nothing changed"
    newest = Artifact.get("lori-results")
    assert newest is not None
    assert newest.id == page.id


def test_a_wrong_setting_is_bad_input(run: Callable[..., Any], toy: Path, worked: Worked) -> None:
    (toy / "dvc.yaml").write_text("stages: [")
    state = run()
    assert failure_code(state) == 2
    assert worked() == []


@pytest.mark.parametrize("leads", [False, True], ids=["alone", "with its group"])
def test_a_killed_starter_takes_its_child_along(leads: bool, tmp_path: Path) -> None:
    body = "import subprocess; subprocess.run(['sleep', '1000'])" if leads else "signal.pause()"
    module = f"import signal; print('up', flush=True); {body}"
    (tmp_path / "forever.py").write_text(module)
    starter = (
        "import subprocess, sys; from flows.environment import child_environment; "
        "subprocess.Popen([sys.executable, '-m', 'lori_core.core.processes.child', 'forever'], "
        f"start_new_session={leads}, env=dict(child_environment(PYTHONPATH={str(tmp_path)!r})))"
        ".wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGKILL)
        # Readable, and empty: nobody holds the other end of the pipe any more.
        assert select.select([process.stdout], [], [], 60)[0]
        assert process.stdout.read() == b""


def test_stopping_ends_the_whole_group(tmp_path: Path) -> None:
    from flows.execution.subprocesses import run_lines

    stop, seen = threading.Event(), list[str]()
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)

    def line(text: str) -> None:
        seen.append(text)
        stop.set()

    command = ["/bin/sh", "-c", f"exec 3>{held}; sleep 1000 & echo up; wait"]
    code = run_lines(command, folder=tmp_path, environment=os.environ, line=line, stop=stop)
    assert (code, seen) == (-signal.SIGTERM, ["up"])
    assert select.select([reader], [], [], 60)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_cancelled_stage_has_said_so_before_the_pipeline_ends(tmp_path: Path) -> None:
    # What is said later reaches MLflow only with the next run: its run would stay open till then.
    (tmp_path / "params.yaml").write_text("{}")
    run = PipelineRun(tmp_path, "a-run", print)
    slow_to_end = dedent(
        """
        import os, signal, time
        def end(*_):
            time.sleep(0.5)
            os._exit(1)
        signal.signal(signal.SIGTERM, end)
        with open(os.environ["LORI_ROWS"], "w") as rows:
            rows.write('{"type": "start", "time": 1}\\n')
        print("at work", flush=True)
        time.sleep(60)
        """
    )
    begun, raised = threading.Event(), []

    def stage() -> None:
        command = [sys.executable, "-c", slow_to_end]
        try:
            run.place.command("train@a", command, "", "a-task", lambda line: begun.set())
        except Cancelled as error:
            raised.append(error)

    thread = threading.Thread(target=stage)
    thread.start()
    assert begun.wait(30)
    run.cancel()
    (rows,) = (tmp_path / ".lori" / "rows" / "train@a").glob("*.jsonl")
    assert last_end(rows) == {"type": "error", "message": "cancelled", "exit_code": 143} | {
        "time": pytest.approx(time.time(), abs=60)
    }
    thread.join()
    assert len(raised) == 1


def test_experiments_that_cannot_be_written_fail_the_run_with_the_line_of_the_command(
    run: Callable[..., Any], tracked: Path
) -> None:
    smoke = (Path(__file__).parents[2] / "profiles/smoke.yaml").read_text()
    (tracked / "params.yaml").write_text(smoke.replace("safety_task: safety", "safety_task: null"))
    state = run(experiments=["continual"])
    assert state.is_failed()
    assert (
        state.message
        == "params.yaml: continual.safety_task: needed when continual.tasks is not empty"
    )
    assert failure_code(state) == 2
