"""Report flow runs whose process was killed to the Prefect server.

Only the pipeline that holds the workspace's lock can be running in it. So every other run that is
listed in the workspace's file and still `Running` on the server was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from lori_core.core.files.atomic import write_json

FILE = Path(".lori/flow_runs.json")


def close_dead(workspace: Path, own: str, say: Callable[[str], None]) -> None:
    """Set the flow runs that were killed in this workspace to `Crashed`; add our own to the file.

    The caller must hold the pipeline lock. Runs whose server does not answer stay in the file for
    the next call.

    Args:
        workspace: whose runs are closed.
        own: the id of the flow run of this process.
        say: called with a line for each closed run.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    path = workspace / FILE
    left = []
    with get_client(sync_client=True) as client:
        for run_id in _listed(path):
            try:
                state = client.read_flow_run(UUID(run_id)).state
                if run_id == own or state is None:
                    continue
                if not state.is_final():
                    message = "its process was killed; found by the next run in this workspace"
                    client.set_flow_run_state(UUID(run_id), Crashed(message=message), force=True)
                    say(f"the run {run_id} was killed; it is marked as crashed")
                # A worker that sets a flow run to crashed leaves its task runs as they are.
                _close_tasks(client, UUID(run_id))
            except ObjectNotFound:  # on another server, or deleted
                continue
            except Exception:  # the server is busy or broken: tried again next time
                left.append(run_id)
    write_json(path, [*left, own])


def _close_tasks(client: Any, run_id: UUID) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.states import Crashed

    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    for run in client.read_task_runs(flow_run_filter=of_run):
        if run.state is not None and run.state.is_running():
            client.set_task_run_state(run.id, Crashed(message="killed with its flow"), force=True)


def _listed(path: Path) -> list[str]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return [str(run_id) for run_id in listed] if isinstance(listed, list) else []
