"""The stage `merge`: merge the adapters of several tasks (paper, section 2.2)."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.adapter_facts import adapter_facts
from lori_core.pipeline.merging import parents_of, weights_of
from lori_core.pipeline.results import METRICS, merged_path, write_metrics


def merge(params: Params, name: str, tracker: RunTracker) -> None:
    """Merge the tasks' adapters, and save the merged adapter and its metrics."""
    from lori_core.adapters import adapter_file

    parents = parents_of(params, name)
    merged = parents.merged(*weights_of(params, name, parents))
    adapter_file.save(merged, merged_path(name))
    facts = adapter_facts(merged, merged_path(name))
    write_metrics(METRICS / "merge", name, facts, tracker)
