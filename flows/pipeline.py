"""The flow `lori`: pull the data, then run the stages of `dvc.yaml` that must run.

DVC says what must run and in which order; nothing of the graph is repeated here. Prefect says when:
each stage is one task, tried again after a crash. The engine (`flows.execution.engine`) says where.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from flows.environment import quiet_environment

quiet_environment()

from prefect import State, flow, get_run_logger  # noqa: E402
from prefect.artifacts import create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.runtime import flow_run  # noqa: E402
from prefect.states import Cancelled, Completed, Failed  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

from flows.execution.engine import Engine, Future, engine_of  # noqa: E402
from flows.execution.stage_run import BadInput, PipelineRun, StageFailed, read_summary  # noqa: E402
from flows.execution.tasks import UNCHANGED, kind, pull  # noqa: E402
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

#: How a run ends that found everything up to date.
NOTHING_CHANGED = "nothing changed"


@dataclass(frozen=True)
class Asked:
    """Which part of the pipeline was asked for; all of it where empty."""

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
    """Run the pipeline of the workspace this process stands in.

    Args:
        profile: name of a file in `profiles/` to copy over `params.yaml` first.
        overrides: `key=value` settings written into `params.yaml` first.
        tasks: run only these tasks' stages and what they stand on; all tasks unless given.
        stages: run only these steps (`train`) or stages (`train@math`) and what they stand on.
        experiments: names of experiments to run instead of the pipeline; `all` for all of them.
        gate: afterwards, judge the result against what is served, and promote it if it is better.
    """
    logger = get_run_logger()
    plain_logs()
    workspace = Path.cwd()
    with redacted_errors(), pipeline_lock(workspace, logger.info):
        try:
            stopping.check()
            close_dead(workspace, str(flow_run.id), logger.info)
            drop_dead_locks(workspace)
            asked = Asked(tuple(tasks or ()), tuple(stages or ()))
            _configure(workspace, profile, overrides or [], logger)
            if experiments:
                write_experiments(experiments)
                asked = Asked(asked.tasks, asked.stages, graph.EXPERIMENTS)
            state = _run(workspace, asked, logger)
            return _gate(workspace, state, logger) if gate else state
        except stopping.Stopped:
            return Cancelled(message="stopped by a signal")
        except Exception as error:
            known = faults.explained(error)
            if known is None:
                raise
            said = redact(str(known))
            return Failed(message=said, data=kind(known)(said))


def _configure(workspace: Path, profile: str | None, overrides: Sequence[str], logger: Any) -> None:
    from lori_core.pipeline.params_file import apply

    for line in apply(workspace / "params.yaml", profile, overrides):
        logger.info(line)


def write_experiments(names: Sequence[str]) -> None:
    """Write the stages of some experiments, as `params.yaml` has them, with `lori experiment`.

    Raises:
        LoriError: with the command's last line; `InputError` where it refused what was asked.
    """
    command = [sys.executable, "-m", *WRITE, *names]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode:
        said = ran.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
        failed = InputError if ran.returncode == InputError.exit_code else LoriError
        raise failed(said or f"lori experiment --write: exit code {ran.returncode}")


def _gate(workspace: Path, state: State[Any], logger: Any) -> State[Any]:
    """Judge what a run has made; a run that failed or changed nothing is not judged."""
    if not state.is_completed() or state.message == NOTHING_CHANGED:
        return state
    outcome = import_module("flows.serving.gate").run_gate(workspace, read_params(workspace))
    for line in outcome.lines():
        logger.info(line)
    return Completed(message="promoted" if outcome.promoted else "not promoted")


def _run(workspace: Path, asked: Asked, logger: Any) -> State[Any]:
    report = graph.REPORTS[asked.file]
    run = PipelineRun(workspace, str(flow_run.id), logger.warning, report)
    # Before the data is pulled: what cannot be run is said first.
    plan = select(graph.plan(workspace, asked.file), run.params, asked.tasks, asked.stages)
    engine = engine_of(run)
    engine.check(plan.stages)
    if asked.file == graph.PIPELINE:  # what experiments write is in no model of cost
        room.check(workspace, run.params, [s.name for s in plan.stages if s.name in plan.stale])
    run.start()
    try:
        with stopping.listening(run.cancel):
            failures, changed = _execute(run, engine, asked, plan, logger)
        stopping.check()
    except BaseException as error:
        # A signal or Ctrl-C: the tasks' threads do not see it, so they are told.
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
        logger.warning("not everything reached MLflow; `lori track` ships the rest")
    if failures:
        failed = BadInput if code == BadInput.exit_code else StageFailed
        return Failed(message=message, data=failed(message))
    if not changed:
        return Completed(message=NOTHING_CHANGED)
    _show(workspace / report)
    return Completed(message="all stages are up to date")


def _execute(
    run: PipelineRun, engine: Engine, asked: Asked, plan: graph.Plan, logger: Any
) -> tuple[dict[str, StageFailed], bool]:
    """Pull, then run what is stale; return the stages that failed, and if there was any to run.

    `plan` is from before the pull: it holds where nothing was stale and the pull brings nothing.
    """
    options: dict[str, Any] = {"retries": run.retries, "retry_delay_seconds": RETRY_DELAY_SECONDS}
    pulled = pull.with_options(**options).submit(run)
    pulled.wait()
    stopping.check()
    failures = _failures({"pull": pulled})
    if failures:
        return failures, True
    if plan.stale or pulled.state.name != UNCHANGED:
        plan = select(graph.plan(run.workspace, asked.file), run.params, asked.tasks, asked.stages)
    run.skipped([stage.name for stage in plan.stages if stage.name not in plan.stale])
    logger.info("%d stages, %d to run on %s", len(plan.stages), len(plan.stale), engine.where())
    return _failures(engine.execute(plan, options)), bool(plan.stale)


def _failures(futures: Mapping[str, Future]) -> dict[str, StageFailed]:
    """Return the tasks that failed by themselves; those behind them never started."""
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
    """Put the results into Prefect's UI."""
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
        # The file's keys are sorted; people read the model first.
        columns = summary.get("columns") or list(summary["table"][0])
        table = [{column: row[column] for column in columns} for row in summary["table"]]
        about = "Percent right on the test sets, with 95 % intervals"
        create_table_artifact(table, key="lori-table", description=about)
