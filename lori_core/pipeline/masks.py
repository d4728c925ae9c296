"""Which tasks are trained inside a mask, and what stands in the place of one that is not used."""

from __future__ import annotations

from pathlib import Path

from lori_core.config import Params
from lori_core.core.files.atomic import replaced_folder, write_json
from lori_core.core.tracking import RunTracker
from lori_core.methods.catalogue import METHODS
from lori_core.pipeline.results import UNUSED, write_metrics


def calibrated_by(params: Params, task: str) -> str | None:
    """Return the method that trains what a task's mask is taken from; None without a mask."""
    return METHODS[params.tasks[task].method_name].calibrated_by


def write_unused(params: Params, task: str, path: Path, metrics: Path, tracker: RunTracker) -> None:
    """Write a note in the place of an output that the task's method has no use for."""
    said = {"method": params.tasks[task].method_name}
    if path.suffix:
        write_json(path, said)
    else:
        with replaced_folder(path) as work:
            write_json(work / UNUSED, said)
    write_metrics(metrics, task, said | {"unused": True}, tracker)
