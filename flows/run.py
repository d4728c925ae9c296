"""The functions behind `lori run`: run the pipeline in this process, without a separate server."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from flows import access
from flows.environment import console_environment, prefect_home, quiet_environment
from flows.execution.fork_server import serving
from flows.lock import pipeline_runs
from flows.server.local_api import start_local_api
from flows.server.services import running_api
from flows.tracking.sending import read_params
from flows.versioning import graph
from flows.versioning.snapshot import LOCK
from lori_core.core.processes import stopping


def plan(workspace: Path, pipeline: str = graph.PIPELINE) -> graph.Plan | None:
    """Return which stages would run; None while another pipeline runs here and may change that.

    It imports neither Prefect nor MLflow. The caller must check that `data/` fits `params.yaml`.

    Raises:
        InputError: `dvc.yaml` or `params.yaml` cannot be read.
    """
    return None if pipeline_runs(workspace) else graph.plan(workspace, pipeline)


def nothing_to_do(planned: graph.Plan | None) -> str | None:
    """Return a line if no stage of a plan is stale; None otherwise, or without a plan."""
    if planned is None or planned.stale:
        return None
    return f"{len(planned.stages)} stages, all unchanged: nothing to run"


def fork_server(workspace: Path, *, first_run: bool = False) -> AbstractContextManager[None]:
    """Return a context manager that runs a fork server, which stages on this machine start from.

    It does nothing if a server runs already, or if stages run on another engine than `local`.

    Args:
        workspace: the folder of the workspace.
        first_run: whether to do nothing, too, if a stage has run here before. Before the data is
            pulled, only a first run is sure to have stages to run.
    """
    if first_run and (workspace / LOCK).exists():
        return nullcontext()
    engine = (read_params(workspace).get("execution") or {}).get("engine", "local")
    return serving(workspace) if engine == "local" else nullcontext()


def run_in_process(
    workspace: Path,
    experiments: list[str] | None = None,
    *,
    prepared: graph.Plan | None = None,
) -> int:
    """Run the flow in this process and return its exit code: 0 done, 1 failed, 2 bad input.

    It uses the Prefect server of `PREFECT_API_URL`, else that of `make up`, else it starts a server
    that ends with this process. The server and the fork server start at once, beside each other.

    Args:
        workspace: the folder of the workspace.
        experiments: experiments to run instead of the pipeline.
        prepared: the plan of a caller that has pulled the data and written the experiments'
            stages, and has held the pipeline lock since. The flow then does none of it again.

    Raises:
        InputError: the server of `PREFECT_API_URL` or of `make up` does not answer.
        LoriError: Prefect's API did not start.
        Stopped: a signal came; the run is cancelled in Prefect and killed in MLflow.
    """
    quiet_environment()
    console_environment()
    running = running_api(workspace)
    with _working_folder(workspace), fork_server(workspace):
        own = None if running else start_local_api(workspace)
        # Set before Prefect is imported, since it reads its settings once.
        os.environ.update(own.variables if own else _variables(workspace, str(running)))
        os.environ.update(prefect_home(workspace))
        from flows.pipeline import failure_of, pipeline
        from flows.prepared import PLAN

        if own is not None:
            logging.getLogger("prefect.flow_runs").addFilter(_is_not_ui_link)
            own.wait()

        def flow() -> Any:
            PLAN.set(prepared)
            return pipeline(experiments=experiments, return_state=True)

        # An exception at an arbitrary moment would break Prefect's engine and client.
        state = stopping.in_thread(flow)
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
