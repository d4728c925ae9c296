"""The stage `train`: train a task's adapter, within the task's mask if it has one."""

from __future__ import annotations

from typing import Any

from lori_core.config import Params
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.base import open_base
from lori_core.pipeline.masks import calibrated_by
from lori_core.pipeline.results import METRICS, adapter_path, calibrated_path, mask_path
from lori_core.pipeline.saving import save_trained


def train(params: Params, task: str, tracker: RunTracker) -> None:
    """Train a task's adapter with the method of its section in params.yaml."""
    from lori_core.methods.tuning import Tuning, tune

    session = open_base(params)
    inputs = {} if calibrated_by(params, task) is None else _mask_inputs(task)
    run = Tuning.of_task(params, f"train@{task}", task, "training", **inputs)
    trained, result = tune(session, run, tracker)
    save_trained(session, trained, result, adapter_path(task), METRICS / "train", task, tracker)


def _mask_inputs(task: str) -> dict[str, Any]:
    """Return a task's mask and the adapter of its calibration run."""
    from lori_core.adapters import adapter_file
    from lori_core.adapters.masks import mask_file

    mask, _ = mask_file.load(mask_path(task))
    calibrated = adapter_file.load(calibrated_path(task))
    mask.check_shapes(calibrated.shapes, str(mask_path(task)))
    return {"mask": mask, "calibrated": calibrated}
