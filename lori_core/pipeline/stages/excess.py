"""The stage `excess`: the excess held-out loss of each task in a merge (eq. 3)."""

from __future__ import annotations

import sys

from lori_core.config import Params
from lori_core.core.files.atomic import write_json
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.base import open_base
from lori_core.pipeline.merging import parents_of, weights_of
from lori_core.pipeline.results import METRICS, merged_path, own_losses_path


def excess(params: Params, name: str, tracker: RunTracker) -> None:
    """Measure the excess held-out loss of each task in a merge (eq. 3)."""
    from lori_core.adapters import adapter_file
    from lori_core.core.files.atomic import read_object
    from lori_core.data.pulled import read_held_out
    from lori_core.evaluation.excess import excess as measure

    session = open_base(params, training=False)
    merged = parents_of(params, name)
    weights, _ = weights_of(params, name, merged)
    alone = merged.alone(weights)
    parents = {task: (adapter, 1.0) for task, adapter in alone.items()}
    examples = {task: read_held_out(task) for task in parents}
    for task in [task for task in parents if not any(e.target for e in examples[task])]:
        print(f"{task}: no held-out example has a target; its loss is left out", file=sys.stderr)
        del parents[task]
    own = {task: read_object(own_losses_path(task)) for task in parents}
    result = measure(session, adapter_file.load(merged_path(name)), parents, examples, name, own)
    for measured in ("excess", "retained"):
        rows = ((f"{measured}.{task}", row[measured]) for task, row in result["excess"].items())
        tracker.metrics({key: value for key, value in rows if value is not None})
    write_json(METRICS / "excess" / f"{name}.json", result)
