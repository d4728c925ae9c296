"""The Prefect tasks of the flow `lori` on this machine: pull the data, run a stage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flows.environment import quiet_environment

quiet_environment()

from prefect import State, get_run_logger, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.runtime import task_run  # noqa: E402
from prefect.states import Completed, Failed  # noqa: E402

from flows.execution import assets  # noqa: E402
from flows.execution.gpu_slots import StoppedError  # noqa: E402
from flows.execution.sharing import WHOLE  # noqa: E402
from flows.execution.stage_run import (  # noqa: E402
    BadInput,
    Cancelled,
    Finished,
    MemoryLacking,
    PipelineRun,
    StageFailed,
)
from flows.versioning.dvc import code_files  # noqa: E402
from flows.versioning.dvc.pipeline_file import FILE  # noqa: E402
from flows.versioning.graph import PARAMS  # noqa: E402
from flows.versioning.snapshot import DATA  # noqa: E402
from lori_core.core import faults  # noqa: E402
from lori_core.core.errors import LoriError  # noqa: E402
from lori_core.core.redaction import redact_logs, redacted_errors  # noqa: E402

# In the flow's process and on a cluster's nodes, since log records go to Prefect's server.
redact_logs()

#: The name of the state of a task that had nothing to do.
UNCHANGED = "Unchanged"

#: The module and arguments of `lori pull`.
PULL = ("lori_cli", "pull")


def worth_retrying(task: Any, run: Any, state: State[Any]) -> bool:
    """Return whether a failed task may run again unchanged.

    Bad input, cancellation and a share of a GPU that was too small are not retried.
    """
    error = state.data
    if isinstance(error, MemoryLacking) and error.shared:
        return False
    return isinstance(error, StageFailed) and not isinstance(error, BadInput | Cancelled)


def outcome(work: Any) -> State[Any]:
    """Run `work()` and return a Prefect state; known errors become a message without a traceback.

    Args:
        work: returns a `Finished`, or an object with the attribute `finished`.
    """
    try:
        with redacted_errors():
            result = work()
    except StoppedError:
        return Failed(message="cancelled", data=Cancelled("cancelled"))
    except StageFailed as error:
        return Failed(message=str(error), data=error)
    except Exception as error:
        known = faults.explained(error)
        if known is None:
            raise
        return Failed(message=str(known), data=failure_class(known)(str(known)))
    finished: Finished = getattr(result, "finished", result)
    name = "Completed" if finished.ran else UNCHANGED
    return Completed(name=name, message=f"{finished.seconds:.0f} s", data=result)


def failure_class(error: LoriError) -> type[StageFailed]:
    """Return the class that stands for a `LoriError` in a failed state, by its exit code."""
    return BadInput if error.exit_code == BadInput.exit_code else StageFailed


@task(name="pull", task_run_name="pull", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def pull(run: PipelineRun, is_pulled: bool = False) -> State[Any]:
    """Run `lori pull`, which makes `data/` and `data.dvc` what `params.yaml` asks for.

    Args:
        run: the pipeline run.
        is_pulled: whether `lori run` has just done the same in this process; then do nothing.
    """
    if is_pulled:
        return Completed(name=UNCHANGED, message="the data was pulled before the flow began")
    logger = get_run_logger()
    command = [sys.executable, "-m", "lori_core.core.processes.child", *PULL]
    task_run_id = str(task_run.id)

    def work() -> Finished:
        before = pulled_files(run.workspace)
        finished, _ = run.place.command("pull", command, "", task_run_id, logger.info)
        return Finished(pulled_files(run.workspace) != before, finished.seconds)

    return outcome(work)


def pulled_files(workspace: Path) -> dict[str, bytes]:
    """Return the files that `lori pull` writes and that decide which stages are stale.

    Besides the pin of the data, a new version of lori changes `code/`, and it or an extension
    `dvc.yaml`.
    """
    code = sorted((workspace / code_files.FOLDER).glob("*.json"))
    paths = [workspace / name for name in (DATA, FILE, PARAMS)] + code
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


@task(
    name="stage", task_run_name="{stage}", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying
)
def run_stage(stage: str, gpus: int, run: PipelineRun) -> State[Any]:
    """Let DVC reproduce one stage, in a process of its own, on its share of the machine.

    If the share has too little memory, the stage runs again with whole GPUs, or alone on the CPU.
    """
    logger = get_run_logger()
    task_run_id = str(task_run.id)

    def once() -> Finished:
        share = run.shares.get(stage, WHOLE)
        with run.slots.hold(gpus, share.parts, run.dependents.get(stage, 0)) as devices:
            return run.place.stage(stage, devices, task_run_id, logger.info, share)

    def work() -> Finished:
        shared = not run.shares.get(stage, WHOLE).whole
        try:
            finished = once()
        except MemoryLacking as error:
            if not shared:
                raise
            alone = "on a GPU of its own" if run.slots.gpus else "with no other stage beside it"
            logger.warning("%s; running it again %s", error, alone)
            run.lacked_memory(stage)
            finished = once()
        if finished.ran:
            run.pushing.stage(stage)
            assets.record(run, stage)
        return finished

    return outcome(work)
