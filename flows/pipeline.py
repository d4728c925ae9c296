"""The flow `lori`: pull the data, then run the stale stages of `dvc.yaml`.

DVC decides which stages run and in which order; the graph is not repeated here. Prefect decides
when: each stage is one task, which is retried after a crash. The engine (`flows.execution.engine`)
decides where.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.environment import quiet_environment

quiet_environment()

from prefect import State, flow, get_run_logger  # noqa: E402
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.runtime import flow_run  # noqa: E402
from prefect.states import Cancelled, Completed, Failed  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

from flows import prepared  # noqa: E402
from flows.execution import assets  # noqa: E402
from flows.execution.engine import Engine, Future, engine_of  # noqa: E402
from flows.execution.stage_run import BadInput, PipelineRun, StageFailed, read_summary  # noqa: E402
from flows.execution.tasks import UNCHANGED, failure_class, pull  # noqa: E402
from flows.lock import pipeline_lock  # noqa: E402
from flows.parameters import Experiment, Override, Profile, StageName, Task, select  # noqa: E402
from flows.planning import room  # noqa: E402
from flows.server.dead_runs import close_dead  # noqa: E402
from flows.server.plain_logs import plain_logs  # noqa: E402
from flows.tracking.sending import read_params  # noqa: E402
from flows.versioning import graph  # noqa: E402
from flows.versioning.dvc.dvc_repo import drop_dead_locks  # noqa: E402
from lori_core.core import faults  # noqa: E402
from lori_core.core.errors import InputError, LoriError  # noqa: E402
from lori_core.core.processes import stopping  # noqa: E402
from lori_core.core.redaction import redact, redacted_errors  # noqa: E402

RETRY_DELAY_SECONDS = 2
#: The command that writes the stages of experiments.
WRITE = ("lori_cli", "experiment", "--write")

#: The message of a run in which no stage was stale.
NOTHING_CHANGED = "nothing changed"


@dataclass(frozen=True)
class Selection:
    """The part of a pipeline to run.

    Attributes:
        tasks: the selected tasks; empty for all.
        stages: the selected steps or stages; empty for all.
        file: the file that defines the pipeline.
    """

    tasks: tuple[str, ...]
    stages: tuple[str, ...]
    file: str = graph.PIPELINE


@flow(name="lori", task_runner=ThreadPoolTaskRunner(), persist_result=False)  # type: ignore[arg-type]
def pipeline(
    profile: Profile | None = None,
    overrides: list[Override] | None = None,
    tasks: list[Task] | None = None,
    stages: list[StageName] | None = None,
    experiments: list[Experiment] | None = None,
    gate: bool = False,
) -> State[Any]:
    """Run the pipeline of the workspace in the current folder.

    Args:
        profile: name of a file in `profiles/` to copy over `params.yaml` first.
        overrides: `key=value` settings written into `params.yaml` first.
        tasks: run only these tasks' stages and their dependencies; by default all tasks.
        stages: run only these steps (`train`) or stages (`train@math`) and their dependencies.
        experiments: names of experiments to run instead of the pipeline; `all` for all of them.
        gate: afterwards, judge the result against the champion, and promote it if it passes.
    """
    logger = get_run_logger()
    plain_logs()
    workspace = Path.cwd()
    with redacted_errors(), pipeline_lock(workspace, logger.info):
        try:
            stopping.check()
            close_dead(workspace, str(flow_run.id), logger.info)
            drop_dead_locks(workspace)
            selection = Selection(tuple(tasks or ()), tuple(stages or ()))
            _configure(workspace, profile, overrides or [], logger)
            if experiments:
                if prepared.PLAN.get() is None:
                    write_experiments(experiments)
                selection = replace(selection, file=graph.EXPERIMENTS)
            state = _run(workspace, selection, logger)
            return _gate(workspace, state, logger) if gate else state
        except stopping.Stopped:
            drop_dead_locks(workspace)  # of stages that had to be killed
            return Cancelled(message="stopped by a signal")
        except Exception as error:
            known = faults.explained(error)
            if known is None:
                raise
            message = redact(str(known))
            return Failed(message=message, data=failure_class(known)(message))


def _configure(workspace: Path, profile: str | None, overrides: Sequence[str], logger: Any) -> None:
    from lori_core.pipeline.params_file import apply

    for line in apply(workspace / "params.yaml", profile, overrides):
        logger.info(line)


def write_experiments(names: Sequence[str]) -> None:
    """Write the stages of some experiments for `params.yaml`, by `lori experiment --write`.

    Raises:
        InputError: the command refused its input.
        LoriError: the command failed; the message is its last line.
    """
    command = [sys.executable, "-m", *WRITE, *names]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        message = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
        failed = InputError if done.returncode == InputError.exit_code else LoriError
        raise failed(message or f"lori experiment --write: exit code {done.returncode}")


def _gate(workspace: Path, state: State[Any], logger: Any) -> State[Any]:
    """Run the gate after a run; skip it if the run failed or changed nothing."""
    if not state.is_completed() or state.message == NOTHING_CHANGED:
        return state
    from flows.serving.gate import run_gate

    outcome = run_gate(workspace, read_params(workspace))
    for line in outcome.lines():
        logger.info(line)
    return Completed(message="promoted" if outcome.promoted else "not promoted")


def _run(workspace: Path, selection: Selection, logger: Any) -> State[Any]:
    report = graph.REPORTS[selection.file]
    run = PipelineRun(workspace, str(flow_run.id), logger.warning, report)
    # Planned before the pull, so that a run that is impossible fails first.
    plan = _plan(run, selection, prepared.PLAN.get())
    engine = engine_of(run)
    engine.check(plan.stages)
    if selection.file == graph.PIPELINE:  # the cost model does not cover experiments
        room.check(workspace, run.params, [s.name for s in plan.stages if s.name in plan.stale])
    run.start()
    try:
        with stopping.listening(run.cancel):
            failures, changed = _execute(run, engine, selection, plan, logger)
        stopping.check()
    except BaseException as error:
        # The tasks' threads do not receive a signal or Ctrl-C, so they are cancelled here.
        run.cancel()
        if isinstance(error, Exception):
            run.end((f"{type(error).__name__}: {error}", 1))
        else:
            run.end(("stopped by a signal", stopping.stop_exit_code() or 128 + signal.SIGTERM))
        raise
    message = "; ".join(f"{name}: {error}" for name, error in failures.items())
    codes = {error.exit_code for error in failures.values()}
    code = BadInput.exit_code if codes == {BadInput.exit_code} else 1
    if not run.end((message, code) if failures else None):
        logger.warning("not everything reached MLflow; `lori track` sends the rest")
    if failures:
        failed = BadInput if code == BadInput.exit_code else StageFailed
        return Failed(message=message, data=failed(message))
    if not changed:
        return Completed(message=NOTHING_CHANGED)
    _show(workspace / report)
    if selection.file == graph.PIPELINE:
        assets.show_graph(workspace)
    return Completed(message="all stages are up to date")


def _plan(run: PipelineRun, selection: Selection, prepared: graph.Plan | None = None) -> graph.Plan:
    plan = prepared or graph.plan(run.workspace, selection.file)
    return select(plan, run.params, selection.tasks, selection.stages)


def _execute(
    run: PipelineRun, engine: Engine, selection: Selection, plan: graph.Plan, logger: Any
) -> tuple[dict[str, StageFailed], bool]:
    """Pull the data, then run the stale stages.

    Args:
        run: the pipeline run.
        engine: where stages run.
        selection: the part of the pipeline to run.
        plan: the plan from before the pull; it is reused if there was nothing to pull, or if
            nothing was stale and the pull changed nothing.
        logger: the flow run's logger.

    Returns:
        The errors of the stages that failed, and whether any stage was stale.
    """
    options: dict[str, Any] = {"retries": run.retries, "retry_delay_seconds": RETRY_DELAY_SECONDS}
    pulled = pull.with_options(**options).submit(run, is_pulled=prepared.PLAN.get() is not None)
    pulled.wait()
    stopping.check()
    failures = _failures({"pull": pulled})
    if failures:
        return failures, True
    if pulled.state.name != UNCHANGED or (plan.stale and prepared.PLAN.get() is None):
        plan = _plan(run, selection)
    run.skipped([stage.name for stage in plan.stages if stage.name not in plan.stale])
    logger.info("%d stages, %d to run on %s", len(plan.stages), len(plan.stale), engine.where())
    return _failures(engine.execute(plan, options)), bool(plan.stale)


def _failures(futures: Mapping[str, Future]) -> dict[str, StageFailed]:
    """Return the errors of the tasks that failed; tasks that depend on them never started."""
    failures: dict[str, StageFailed] = {}
    for name, future in futures.items():
        state = future.state
        if not state.is_completed() and not state.is_pending():
            failures[name] = failure_of(state)
    return failures


def failure_of(state: State[Any]) -> StageFailed:
    """Return the error that a failed state of a task or of the flow carries."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, StageFailed):
        return error
    return StageFailed(state.message or str(state.name))


def _show(report: Path) -> None:
    """Show the results in Prefect's UI."""
    pages = {
        "summary.md": ("lori-results", "Every model on every task, and what merging cost"),
        "evidence.md": ("lori-experiments", "The experiments beside the paper's"),
    }
    for page, (key, about) in pages.items():
        if (report / page).exists():
            text = (report / page).read_text(encoding="utf-8")
            create_markdown_artifact(text, key=key, description=about)
    summary = read_summary(report)
    if summary.get("table"):
        # The file's keys are sorted, but people want to see the model first.
        columns = summary.get("columns") or list(summary["table"][0])
        table = [{column: row[column] for column in columns} for row in summary["table"]]
        about = "Percent right on the test sets, with 95 % intervals"
        create_table_artifact(table, key="lori-table", description=about)
