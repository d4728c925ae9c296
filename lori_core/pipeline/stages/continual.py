"""The stage `continual`: train a task on top of the safety adapter (paper, section 2.3)."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.base import open_base
from lori_core.pipeline.masks import calibrated_by
from lori_core.pipeline.results import METRICS, adapter_path, continual_path, mask_path
from lori_core.pipeline.saving import save_trained


def continual(params: Params, task: str, tracker: RunTracker) -> None:
    """Train a task on top of the safety adapter, within the task's mask if it has one."""
    from lori_core.adapters import adapter_file
    from lori_core.adapters.masks import mask_file
    from lori_core.methods.tuning import Tuning, tune

    session = open_base(params)
    safety = str(params.continual.safety_task)
    start = adapter_file.load(adapter_path(safety))
    masked = calibrated_by(params, task) is not None
    mask = mask_file.load(mask_path(task))[0] if masked else None
    more = {"start": start, "mask": mask, "safety": safety}
    run = Tuning.of_task(params, f"continual@{task}", task, "continual", **more)
    adapter, result = tune(session, run, tracker)
    save_trained(
        session, adapter, result, continual_path(task), METRICS / "continual", task, tracker
    )
