"""The stage `interference`: cosines and mask overlap of each pair of adapters."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.core.tracking import RunTracker
from lori_core.evaluation.rows import ADAPTER, CALIBRATED
from lori_core.pipeline.results import (
    METRICS,
    adapter_path,
    calibrated_path,
    is_calibrated,
    write_metrics,
)


def interference(params: Params, tracker: RunTracker) -> None:
    """Compare each pair of the tasks' low-rank adapters, and of their calibrated adapters."""
    from lori_core.adapters import adapter_file
    from lori_core.adapters.adapter import Adapter
    from lori_core.merging import interference as measures
    from lori_core.methods.finetuned_model import open_model

    trained = {task: open_model(adapter_path(task)) for task in params.tasks}
    sparse = {task: model for task, model in trained.items() if isinstance(model, Adapter)}
    masked = [task for task in sparse if is_calibrated(task)]
    dense = {task: adapter_file.load(calibrated_path(task)) for task in masked}
    sides = {ADAPTER: sparse, CALIBRATED: dense}
    facts = {n: measures.compare(side) if len(side) > 1 else {} for n, side in sides.items()}
    write_metrics(METRICS, "interference", facts, tracker)
