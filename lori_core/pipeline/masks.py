"""Whether a task is trained with a mask, and the placeholder for outputs that it does not need."""

from __future__ import annotations

from pathlib import Path

from lori_core.config import Params
from lori_core.core.files.atomic import replaced_folder, write_json
from lori_core.core.tracking import RunTracker
from lori_core.methods.catalogue import METHODS
from lori_core.pipeline.results import UNUSED, write_metrics


def calibrated_by(params: Params, task: str) -> str | None:
    """Return the method of a task's calibration run; None if the task has no mask."""
    return METHODS[params.method(task).name].calibrated_by


def write_unused(params: Params, task: str, path: Path, metrics: Path, tracker: RunTracker) -> None:
    """Write a placeholder for a stage's output that the task's method does not need.

    Args:
        params: the parameters of the run.
        task: the task.
        path: the output; a path with a suffix is a file, any other a folder.
        metrics: the folder of the stage's metrics.
        tracker: the stage's tracker.
    """
    content = {"method": params.method(task).name}
    if path.suffix:
        write_json(path, content)
    else:
        with replaced_folder(path) as work:
            write_json(work / UNUSED, content)
    write_metrics(metrics, task, content | {"unused": True}, tracker)
