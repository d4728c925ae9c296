"""`lori pull`: the data, the base model, and what the stages' dependencies say of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.files import json_text, write_text
from lori_core.stage_dependencies import BASE_FILE, TASKS_FILE


def pull(params: Params) -> list[str]:
    """Bring `data/` to what `params.yaml` says, and the base model to this machine.

    `data/tasks.json` holds the tasks' names in their order, which decides how merges are weighted;
    `data/base.json` what identifies the base model's content, wherever it lies. Stages depend on
    both, so that a reordered task or a base that was replaced makes them run again.

    Returns:
        One line for each task that was written.
    """
    from lori_core import models
    from lori_core.data import sources

    folder = models.prepare(params.model)
    said = sources.pull(params)
    identity = models.identity(params.model, folder)
    _write(Path(TASKS_FILE), list(params.tasks))
    _write(Path(BASE_FILE), {"config": identity.config, "weights": identity.weights})
    return said


def _write(path: Path, value: Any) -> None:
    """Write JSON unless the file holds it already: an unchanged file keeps its time."""
    text = json_text(value)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
