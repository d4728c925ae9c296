"""The functions behind `lori run`: run the pipeline in this process, without a separate server."""

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
    """Return a line if no stage is stale, else None; imports neither Prefect nor MLflow.

    Also returns None while another pipeline runs here, since its result is not known yet; then
    `run_in_process` waits for it. The caller must check that `data/` fits `params.yaml`.

    Raises:
        InputError: `dvc.yaml` or `params.yaml` cannot be read.
    """
    if pipeline_runs(workspace):
        return None
    plan = graph.plan(workspace, pipeline)
    return None if plan.stale else f"{len(plan.stages)} stages, all unchanged: nothing to run"


def run_in_process(workspace: Path, experiments: list[str] | None = None) -> int:
    """Run the flow in this process and return its exit code: 0 done, 1 failed, 2 bad input.

    It uses the Prefect server of `PREFECT_API_URL`, else that of `make up`, else it starts a server
    that ends with this process.

    Args:
        workspace: the folder of the workspace.
        experiments: experiments to run instead of the pipeline.

    Raises:
        InputError: the server of `PREFECT_API_URL` or of `make up` does not answer.
        LoriError: Prefect's API did not start.
        Stopped: a signal came; the run is cancelled in Prefect and killed in MLflow.
    """
    quiet_environment()
    console_environment()
    with _working_folder(workspace):
        running = running_api(workspace)
        own = None if running else start_local_api(workspace)
        # Set before Prefect is imported, since it reads its settings once.
        os.environ.update(own.variables if own else _variables(workspace, str(running)))
        os.environ.update(prefect_home(workspace))
        from flows.pipeline import failure_of, pipeline

        if own is not None:
            logging.getLogger("prefect.flow_runs").addFilter(_is_not_ui_link)
            own.wait()
        # An exception at an arbitrary moment would break Prefect's engine and client.
        state = stopping.in_thread(lambda: pipeline(experiments=experiments, return_state=True))
    if state.is_completed():
        return 0
    failure = failure_of(state)
    print(f"error: {failure}", file=sys.stderr)
    return failure.exit_code


def _variables(workspace: Path, url: str) -> dict[str, str]:
    """Return the environment variables that lead Prefect's clients to a running server."""
    return {"PREFECT_API_URL": url, **access.prefect_access(workspace, url)}


@contextmanager
def _working_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _is_not_ui_link(record: logging.LogRecord) -> bool:
    """Return False for Prefect's link to its UI, which our own API does not have."""
    return not record.getMessage().startswith("View at ")
