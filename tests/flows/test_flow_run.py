"""What `lori run` starts, and when: the fork server, before the flow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.run import fork_server, nothing_to_do
from flows.versioning.graph import Plan, Stage
from lori_core.core.processes import forked

STAGE = Stage("train@math", (), 1, "lori stage train math", ("artifacts/math/adapter",))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(forked.VARIABLE, raising=False)
    (tmp_path / "params.yaml").write_text("execution: {engine: local}\n")
    return tmp_path


def starts(workspace: Path, *, first_run: bool) -> bool:
    """Return whether a fork server runs inside the context; no server runs after it."""
    with fork_server(workspace, first_run=first_run):
        started = Path(os.environ.get(forked.VARIABLE, "none")).parent.is_dir()
        started &= forked.VARIABLE in os.environ
    assert forked.VARIABLE not in os.environ
    return started


def test_a_first_run_starts_the_fork_server_before_the_pull(workspace: Path) -> None:
    assert starts(workspace, first_run=True)


def test_a_later_run_starts_it_only_when_a_stage_will_run(workspace: Path) -> None:
    (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    assert not starts(workspace, first_run=True)
    assert starts(workspace, first_run=False)


@pytest.mark.parametrize("first_run", [True, False])
def test_stages_of_another_engine_need_no_fork_server(workspace: Path, first_run: bool) -> None:
    (workspace / "params.yaml").write_text("execution: {engine: ray}\n")
    assert not starts(workspace, first_run=first_run)


def test_only_a_plan_without_stale_stages_leaves_nothing_to_do() -> None:
    assert nothing_to_do(None) is None
    assert nothing_to_do(Plan((STAGE,), {"train@math": ["new stage"]})) is None
    assert nothing_to_do(Plan((STAGE,), {})) == "1 stages, all unchanged: nothing to run"
