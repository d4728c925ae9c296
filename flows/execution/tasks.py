"""The tasks of the flow `lori` on this machine: the pull, and a stage."""

from __future__ import annotations

import sys
from typing import Any

from flows.environment import quiet_environment

quiet_environment()

from prefect import State, get_run_logger, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.runtime import task_run  # noqa: E402
from prefect.states import Completed, Failed  # noqa: E402

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
from flows.versioning.snapshot import DATA  # noqa: E402
from lori_core.core import faults  # noqa: E402
from lori_core.core.errors import LoriError  # noqa: E402
from lori_core.core.redaction import redact_logs, redacted_errors  # noqa: E402

# In the flow's process and on a cluster's nodes: what is logged goes to Prefect's server.
redact_logs()

#: The state of a task that found nothing to do.
UNCHANGED = "Unchanged"

#: The module and arguments of `lori pull`.
PULL = ("lori_cli", "pull")


def worth_retrying(task: Any, run: Any, state: State[Any]) -> bool:
    """Say whether a failed task may run again as it is.

    Not after bad input, after cancellation, or where its share of a GPU did not suffice.
    """
    error = state.data
    if isinstance(error, MemoryLacking) and error.shared:
        return False
    return isinstance(error, StageFailed) and not isinstance(error, BadInput | Cancelled)


def outcome(work: Any) -> State[Any]:
    """Run `work()` and turn how it ended into a state; a traceback would tell a user nothing.

    Args:
        work: returns a `Finished`, or something that has one as `finished`.
    """
    try:
        with redacted_errors():
            made = work()
    except StoppedError:
        return Failed(message="cancelled", data=Cancelled("cancelled"))
    except StageFailed as error:
        return Failed(message=str(error), data=error)
    except Exception as error:
        known = faults.explained(error)
        if known is None:
            raise
        return Failed(message=str(known), data=kind(known)(str(known)))
    finished: Finished = getattr(made, "finished", made)
    name = "Completed" if finished.ran else UNCHANGED
    return Completed(name=name, message=f"{finished.seconds:.0f} s", data=made)


def kind(error: LoriError) -> type[StageFailed]:
    """Return what an error of ours becomes as a failed state."""
    return BadInput if error.exit_code == BadInput.exit_code else StageFailed


@task(name="pull", task_run_name="pull", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying)
def pull(run: PipelineRun) -> State[Any]:
    """Bring `data/` and `data.dvc` to what `params.yaml` says, with `lori pull`."""
    logger = get_run_logger()
    command = [sys.executable, "-m", "lori_core.core.processes.child", *PULL]
    task_run_id = str(task_run.id)

    def pinned() -> bytes:
        path = run.workspace / DATA
        return path.read_bytes() if path.is_file() else b""

    def work() -> Finished:
        before = pinned()
        finished, _ = run.place.command("pull", command, "", task_run_id, logger.info)
        return Finished(pinned() != before, finished.seconds)

    return outcome(work)


@task(
    name="stage", task_run_name="{stage}", cache_policy=NO_CACHE, retry_condition_fn=worth_retrying
)
def run_stage(stage: str, gpus: int, run: PipelineRun) -> State[Any]:
    """Let DVC reproduce one stage, in a process of its own, on its share of the GPUs.

    Where that turns out to have too little memory, it runs again with GPUs of its own.
    """
    logger = get_run_logger()
    task_run_id = str(task_run.id)

    def once() -> Finished:
        share = run.shares.get(stage, WHOLE)
        with run.slots.hold(gpus, share.parts) as devices:
            return run.place.stage(stage, devices, task_run_id, logger.info, share)

    def work() -> Finished:
        shared = not run.shares.get(stage, WHOLE).whole
        try:
            finished = once()
        except MemoryLacking as error:
            if not shared:
                raise
            logger.warning("%s; running it again on a GPU of its own", error)
            run.lacked_memory(stage)
            finished = once()
        if finished.ran:
            run.pushing.stage(stage)
        return finished

    return outcome(work)
