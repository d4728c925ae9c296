"""The commands, and a project in which they are run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bad_inputs import damage
from bad_inputs.commands import Commands

ROOT = Path(__file__).parent.parent.parent
#: Of each kind every third case is run; with this variable set, all of them are (ten minutes).
ALL = "LORI_ALL_BAD_INPUTS"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out two of three cases of each test here."""
    here, counts, left_out = Path(__file__).parent, dict[str, int](), []
    for item in items if not os.environ.get(ALL) else ():
        if item.path.is_relative_to(here):
            kind = item.nodeid.partition("[")[0]
            counts[kind] = counts.get(kind, -1) + 1
            if counts[kind] % 3:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session")
def lori() -> Iterator[Commands]:
    """What runs commands."""
    with Commands() as commands:
        yield commands


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the smoke profile in a folder of its own, deep in one that is watched, too."""
    folder = tmp_path / "outside" / "project"
    (folder / "profiles").mkdir(parents=True)
    smoke = ROOT / "profiles" / "smoke.yaml"
    shutil.copy(smoke, folder / "params.yaml")
    shutil.copy(smoke, folder / "profiles")
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / ".dvc" / "tmp").mkdir(parents=True)  # as dvc init leaves it
    (folder / ".dvc" / "tmp" / "btime").touch()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    return folder


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good adapter of each form, and a good mask."""
    folder = tmp_path_factory.mktemp("good")
    damage.make_good(folder)
    return folder
