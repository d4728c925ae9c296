"""`interference`: how much the tasks' updates overlap, pair by pair."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.evaluation.rows import ADAPTER, CALIBRATED
from lori_core.stages.results import (
    METRICS,
    adapter_path,
    calibrated_path,
    uses_masks,
    write_metrics,
)
from lori_core.tracking import RunTracker


def interference(params: Params, tracker: RunTracker) -> None:
    """Compare each pair of the tasks' adapters, and of the LoRI-D adapters of their masks."""
    from lori_core import adapter_file
    from lori_core import interference as measures
    from lori_core.methods import METHODS

    low_rank = [t for t, s in params.tasks.items() if METHODS[s.method_name].result == "low-rank"]
    sparse = {task: adapter_file.load(adapter_path(task)) for task in low_rank}
    masked = [task for task in low_rank if uses_masks(params, task)]
    dense = {task: adapter_file.load(calibrated_path(task)) for task in masked}
    sides = {ADAPTER: sparse, CALIBRATED: dense}
    facts = {n: measures.compare(side) if len(side) > 1 else {} for n, side in sides.items()}
    write_metrics(METRICS, "interference", facts, tracker)
