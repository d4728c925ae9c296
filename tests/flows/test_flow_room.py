"""A run that would fill the disk is refused before its first stage, in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.planning import room
from lori_core.core.errors import InputError
from lori_core.pipeline import params_file

SMOKE = Path(__file__).parents[2] / "profiles" / "smoke.yaml"


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parameters of a workspace whose base is not in the cache yet."""
    shutil.copy(SMOKE, tmp_path / "params.yaml")
    monkeypatch.setenv("LORI_CACHE", str(tmp_path / "cache"))
    return params_file.load(SMOKE).model_dump()


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


def test_what_does_not_fit_is_refused(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = next(iter(values["tasks"]))
    stages = [f"train@{task}", f"calibrate@{task}"]
    needed = 2 * room.written(params_file.load(SMOKE), stages)
    assert needed > 1000
    free(monkeypatch, needed)
    room.check(tmp_path, values, stages)
    free(monkeypatch, needed - 1)
    with pytest.raises(InputError) as refused:
        room.check(tmp_path, values, stages)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{tmp_path}: {needed / 1e6:.0f} MB free, and this run's 2 stages ")


def test_nothing_is_estimated_where_there_is_plenty(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache" / "models" / str(values["model"]["name_or_path"]).replace(":", "-")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(1000))
    monkeypatch.setattr(room, "written", None)
    free(monkeypatch, 3 * room.STAGE_BYTES)
    room.check(tmp_path, values, ["train@math", "report"])
    room.check(tmp_path, values, [])
