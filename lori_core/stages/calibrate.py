"""`calibrate`: train the dense LoRI-D adapter that the mask is taken from (METHOD, section 2)."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.stages.base import open_base
from lori_core.stages.results import METRICS, calibrated_path, uses_masks, write_unused
from lori_core.stages.saving import keep
from lori_core.tracking import RunTracker


def calibrate(params: Params, task: str, tracker: RunTracker) -> None:
    """Train the dense LoRI-D adapter of a task; a method without masks has no use for one."""
    from lori_core import calibration

    if not uses_masks(params, task):
        write_unused(params, task, calibrated_path(task), METRICS / "calibrate", tracker)
        return
    session = open_base(params)
    adapter, result = calibration.calibrate(session, task, f"calibrate@{task}", tracker)
    keep(session, adapter, result, calibrated_path(task), METRICS / "calibrate", task, tracker)
