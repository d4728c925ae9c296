"""The architecture as a test: imports go down the rooms, and no room is overfull."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("lori_core", "flows", "studies", "lori_cli")
#: How many modules a folder may hold.
MOST = 12


def folders() -> Iterator[str]:
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            yield init.parent.relative_to(ROOT).as_posix()


def test_imports_keep_the_contracts_of_pyproject() -> None:
    # In a process of its own: it configures logging, which disables the loggers there are.
    code = "from importlinter.cli import lint_imports as f; print(f(no_cache=True, no_logo=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0", done.stdout


@pytest.mark.parametrize("folder", list(folders()))
def test_a_folder_can_be_taken_in_at_a_glance(folder: str) -> None:
    modules = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
    assert len(modules) <= MOST, sorted(modules)


@pytest.mark.parametrize("folder", list(folders()))
def test_a_folder_says_what_it_is_for(folder: str) -> None:
    assert (ROOT / folder / "__init__.py").read_text(encoding="utf-8").startswith('"""')


def test_nothing_shadows_the_mlflow_package() -> None:
    present = {path.name for path in (ROOT / "mlflow").rglob("*")}
    assert not present & {"__init__.py", "conftest.py", "mlflow.py"}
    assert not {name for name in present if name.startswith("test_")}
