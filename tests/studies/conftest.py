"""Experiments as files, and read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import experiment_rows
import pytest

from lori_core.core.files.atomic import write_json
from studies.analysis import rows
from studies.analysis.rows import Experiment

Build = Callable[..., Experiment]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return a function that writes rows as an experiment's file and reads it."""

    def made(name: str, given: Sequence[dict[str, Any]], **info: Any) -> Experiment:
        path = tmp_path / f"{name}.json"
        write_json(path, {"experiment": name, "info": info, "rows": list(given)})
        return rows.read(path)

    return made


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all experiments' files, as a real run might leave them."""
    folder = tmp_path_factory.mktemp("experiments")
    for name, content in experiment_rows.everything().items():
        write_json(folder / f"{name}.json", content)
    return folder


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Experiment]:
    """Return all experiments as they would be without any chance."""
    folder = tmp_path_factory.mktemp("exact")
    for name, content in experiment_rows.everything(exact=True).items():
        write_json(folder / f"{name}.json", content)
    return rows.read_folder(folder)
