"""The stages that measure: scores of each adapter, interference, what a merge costs, the report."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.files import write_json
from lori_core.stages.results import (
    EVALUATIONS,
    METRICS,
    REPORT,
    adapter_path,
    calibrated_path,
    continual_path,
    merged_path,
    uses_masks,
    write_metrics,
)
from lori_core.tracking import RunTracker

#: The row of a task's own adapter in its scores, whatever its method.
OWN = "lori-s"


def evaluate_base(params: Params, tracker: RunTracker) -> None:
    """Score the base model on all tasks."""
    _evaluate(params, tracker, "base", "", {"base": (None, list(params.tasks))})


def evaluate_adapters(params: Params, task: str, tracker: RunTracker) -> None:
    """Score a task's adapter on the task, and the LoRI-D adapter its mask came from."""
    paths = {"lori-d": calibrated_path(task)} if uses_masks(params, task) else {}
    paths[OWN] = adapter_path(task)
    _evaluate(params, tracker, "adapters", task, {row: (p, [task]) for row, p in paths.items()})


def evaluate_merged(params: Params, name: str, tracker: RunTracker) -> None:
    """Score a merged adapter on all tasks."""
    _evaluate(params, tracker, "merged", name, {name: (merged_path(name), list(params.tasks))})


def evaluate_continual(params: Params, task: str, tracker: RunTracker) -> None:
    """Score a safety-preserving adapter on its task and on safety."""
    tasks = [task, str(params.continual.safety_task)]
    _evaluate(params, tracker, "continual", task, {"continual": (continual_path(task), tasks)})


def _evaluate(
    params: Params,
    tracker: RunTracker,
    group: str,
    item: str,
    rows: dict[str, tuple[Path | None, list[str]]],
) -> None:
    from lori_core.data.pulled import read_examples
    from lori_core.evaluation.evaluate import evaluate
    from lori_core.files import replaced_folder
    from lori_core.session import open_session
    from lori_core.tuned import open_model

    session = open_session(params)
    results: dict[str, Any] = {}
    with replaced_folder(EVALUATIONS / group / item) as work:
        for row, (path, tasks) in rows.items():
            adapter = None if path is None else open_model(path)
            started = time.monotonic()
            sets = {task: read_examples(task, "test") for task in tasks}
            results[row] = evaluate(session, adapter, sets, row, work)
            tracker.metrics({f"seconds.{row}": time.monotonic() - started})
    for row, tasks_scores in results.items():
        for task, scores in tasks_scores.items():
            prefix = f"{row}." if len(results) > 1 else ""
            known = {k: scores[k] for k in ("score", "low", "high") if scores[k] is not None}
            tracker.metrics({f"{prefix}{key}.{task}": value for key, value in known.items()})
    write_json(METRICS / "evaluate" / group / f"{item or 'base'}.json", results)


def interference(params: Params, tracker: RunTracker) -> None:
    """Compare each pair of the tasks' adapters, and of LoRI-D ones."""
    from lori_core import adapter_file
    from lori_core import interference as measures
    from lori_core.methods import METHODS

    low_rank = [t for t, s in params.tasks.items() if METHODS[s.method_name].result == "low-rank"]
    sparse = {task: adapter_file.load(adapter_path(task)) for task in low_rank}
    masked = [task for task in low_rank if uses_masks(params, task)]
    dense = {task: adapter_file.load(calibrated_path(task)) for task in masked}
    sides = {OWN: sparse, "lori-d": dense}
    facts = {n: measures.compare(side) if len(side) > 1 else {} for n, side in sides.items()}
    write_metrics(METRICS, "interference", facts, tracker)


def excess(params: Params, name: str, tracker: RunTracker) -> None:
    """Measure what a merge costs each of its tasks in held-out loss (eq. 3)."""
    from lori_core import adapter_file
    from lori_core.data.pulled import read_held_out
    from lori_core.evaluation.excess import excess as measure
    from lori_core.session import open_session

    session = open_session(params)
    weights = zip(params.merged_tasks(name), params.merge_weights(name), strict=True)
    parents = {task: (adapter_file.load(adapter_path(task)), weight) for task, weight in weights}
    examples = {task: read_held_out(task) for task in parents}
    for task in [task for task in parents if not any(e.target for e in examples[task])]:
        print(f"{task}: no held-out example has a target; its loss is left out", file=sys.stderr)
        del parents[task]
    found = measure(session, adapter_file.load(merged_path(name)), parents, examples, name)
    tracker.metrics({f"excess.{task}": row["excess"] for task, row in found["excess"].items()})
    write_json(METRICS / "excess" / f"{name}.json", found)


def report(params: Params, tracker: RunTracker) -> None:
    """Draw the pictures, the page, and the table that ends a run."""
    from lori_core.report import page

    summary = page.write(params, METRICS, EVALUATIONS, REPORT)
    tracker.metrics(summary["metrics"])
    tracker.artifact(REPORT)
