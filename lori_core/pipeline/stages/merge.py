"""The stage `merge`: merge the adapters of several tasks (paper, section 2.2)."""

from __future__ import annotations

from lori_core.config import Params
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.adapter_facts import adapter_facts
from lori_core.pipeline.results import METRICS, adapter_path, merged_path, write_metrics


def merge(params: Params, name: str, tracker: RunTracker) -> None:
    """Merge the tasks' adapters, and save the merged adapter and its metrics."""
    from lori_core.adapters import adapter_file
    from lori_core.merging import merge as merging
    from lori_core.merging.merge_methods import Options

    section = params.merge[name]
    parents = [adapter_file.load(adapter_path(task)) for task in params.merged_tasks(name)]
    names = {"density", "majority_sign", "rank", "seed", "threshold"}
    options = Options(**section.model_dump(include=names))
    merged = merging.merge(section.method, parents, params.merge_weights(name), options)
    adapter_file.save(merged, merged_path(name))
    facts = adapter_facts(merged, merged_path(name))
    write_metrics(METRICS / "merge", name, facts, tracker)
