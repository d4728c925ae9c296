"""Which files that `lori pull` writes let a flow plan its stages anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.execution.tasks import pulled_files


@pytest.mark.parametrize("name", ["data.dvc", "dvc.yaml", "params.yaml", "code/train.json"])
def test_a_pull_that_changes_what_stages_depend_on_is_seen(name: str, tmp_path: Path) -> None:
    before = pulled_files(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    written = pulled_files(tmp_path)
    path.write_text("{1: 2}")
    assert before != written != pulled_files(tmp_path)
