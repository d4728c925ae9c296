"""What `lori run` calls: the pipeline in this process, with no server needed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import access
from flows.environment import console_environment, prefect_home, quiet_environment
from flows.lock import pipeline_runs
from flows.server.local_api import start_local_api
from flows.server.services import running_api
from flows.versioning import graph
from lori_core.core.processes import stopping


def nothing_to_do(workspace: Path, pipeline: str = graph.PIPELINE) -> str | None:
    """Return one line if no stage has to run, else `None`. Imports neither Prefect nor MLflow.

    While another pipeline runs here, that is not known yet: `None`, and `run_in_process` queues.
    Whether `data/` is what `params.yaml` says is for the caller to check.

    Raises:
        InputError: `dvc.yaml` or `params.yaml` cannot be read.
    """
    if pipeline_runs(workspace):
        return None
    plan = graph.plan(workspace, pipeline)
    return None if plan.stale else f"{len(plan.stages)} stages, all unchanged: nothing to run"


def run_in_process(workspace: Path, experiments: list[str] | None = None) -> int:
    """Run the flow here and return its exit code: 0 done, 1 failed, 2 bad input.

    Uses the Prefect server of `PREFECT_API_URL`, else that of `make up`, else one of its own that
    ends with this process.

    Raises:
        InputError: the server that is named does not answer.
        LoriError: the API did not start.
        Stopped: a signal came; Prefect has the run as cancelled, MLflow as killed.
    """
    quiet_environment()
    console_environment()
    with _working_folder(workspace):
        running = running_api(workspace)
        own = None if running else start_local_api(workspace)
        # Before Prefect is imported: it reads its settings once.
        os.environ.update(own.variables if own else _variables(workspace, str(running)))
        os.environ.update(prefect_home(workspace))
        from flows.pipeline import failure_of, pipeline

        if own is not None:
            logging.getLogger("prefect.flow_runs").addFilter(_is_no_link)
            own.wait()
        # Prefect's engine and client do not bear an exception at any moment.
        state = stopping.in_thread(lambda: pipeline(experiments=experiments, return_state=True))
    if state.is_completed():
        return 0
    failure = failure_of(state)
    print(f"error: {failure}", file=sys.stderr)
    return failure.exit_code


def _variables(workspace: Path, url: str) -> dict[str, str]:
    """Return what leads Prefect's clients to a server that runs."""
    return {"PREFECT_API_URL": url, **access.prefect_access(workspace, url)}


@contextmanager
def _working_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _is_no_link(record: logging.LogRecord) -> bool:
    """Drop Prefect's link to a UI: our own API has none, and it is gone after the run."""
    return not record.getMessage().startswith("View at ")
