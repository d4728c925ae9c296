"""Runs whose process was killed are closed by the next one in the workspace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flows.server.dead_runs import FILE, close_dead

pytestmark = pytest.mark.real

OWN = "11111111-1111-4111-8111-111111111111"
UNKNOWN = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def client(prefect_api: None) -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as made:
        yield made


def flow_run(client: Any, state: Any) -> UUID:
    from prefect import flow

    made = client.create_flow_run(flow(lambda: None, name="dead"), state=state)
    return UUID(str(made.id))


def note(workspace: Path, *runs: object) -> None:
    (workspace / FILE).parent.mkdir(parents=True, exist_ok=True)
    (workspace / FILE).write_text(json.dumps([str(run) for run in runs]))


def test_what_was_killed_is_marked_with_its_tasks(client: Any, tmp_path: Path) -> None:
    from prefect import task
    from prefect.states import Completed, Running

    killed, finished = flow_run(client, Running()), flow_run(client, Completed())
    begun, ended = (
        client.create_task_run(
            task(lambda: None, name=name), killed, dynamic_key=name, state=state
        ).id
        for name, state in (("begun", Running()), ("ended", Completed()))
    )
    note(tmp_path, killed, finished, UNKNOWN)
    said: list[str] = []
    close_dead(tmp_path, OWN, said.append)
    assert said == [f"the run {killed} was killed; it is marked as crashed"]
    assert client.read_flow_run(killed).state.is_crashed()
    assert client.read_flow_run(finished).state.is_completed()
    assert client.read_task_run(begun).state.is_crashed()
    assert client.read_task_run(ended).state.is_completed()
    assert json.loads((tmp_path / FILE).read_text()) == [OWN]


def test_tasks_of_a_run_that_its_worker_has_called_crashed_are_closed(
    client: Any, tmp_path: Path
) -> None:
    from prefect import task
    from prefect.states import Crashed, Running

    crashed = flow_run(client, Crashed())
    begun = client.create_task_run(
        task(lambda: None, name="begun"), crashed, dynamic_key="begun", state=Running()
    ).id
    note(tmp_path, crashed)
    close_dead(tmp_path, OWN, print)
    assert client.read_task_run(begun).state.is_crashed()


def test_a_run_that_cannot_be_asked_about_is_asked_about_again(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.states import Running

    killed = flow_run(client, Running())
    note(tmp_path, killed)
    with monkeypatch.context() as patch:

        def busy(self: Any, run_id: UUID) -> Any:
            raise ConnectionError("the server is away")

        patch.setattr(SyncPrefectClient, "read_flow_run", busy)
        close_dead(tmp_path, OWN, print)
    assert json.loads((tmp_path / FILE).read_text()) == [str(killed), OWN]
    close_dead(tmp_path, UNKNOWN, print)
    assert client.read_flow_run(killed).state.is_crashed()
    assert json.loads((tmp_path / FILE).read_text()) == [UNKNOWN]
