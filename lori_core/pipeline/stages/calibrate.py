"""The stage `calibrate`: train the dense adapter for the mask (paper, section 2.1)."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.base import open_base
from lori_core.pipeline.masks import calibrated_by, write_unused
from lori_core.pipeline.results import METRICS, calibrated_path
from lori_core.pipeline.saving import save_trained


def calibrate(params: Params, task: str, tracker: RunTracker) -> None:
    """Train all of B on a task; write a placeholder if the task's method has no mask."""
    from lori_core.methods.tuning import Tuning, tune

    method = calibrated_by(params, task)
    if method is None:
        write_unused(params, task, calibrated_path(task), METRICS / "calibrate", tracker)
        return
    session = open_base(params)
    run = Tuning(f"calibrate@{task}", task, method, params.phase(task, "calibration"))
    adapter, result = tune(session, run, tracker)
    save_trained(
        session, adapter, result, calibrated_path(task), METRICS / "calibrate", task, tracker
    )
