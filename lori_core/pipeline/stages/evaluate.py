"""The stages that score the base model, merges and continual adapters on test sets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.config import Params
from lori_core.core.files.atomic import write_json
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.base import open_base
from lori_core.pipeline.results import (
    EVALUATIONS,
    METRICS,
    continual_path,
    merged_path,
)

if TYPE_CHECKING:
    from lori_core.methods.loaded_model import LoadedModel


def evaluate_base(params: Params, tracker: RunTracker) -> None:
    """Score the base model on all tasks."""
    evaluate_models(params, tracker, "base", "", {"base": (None, list(params.tasks))})


def evaluate_merged(params: Params, name: str, tracker: RunTracker) -> None:
    """Score a merged adapter on all tasks."""
    evaluate_models(
        params, tracker, "merged", name, {name: (merged_path(name), list(params.tasks))}
    )


def evaluate_continual(params: Params, task: str, tracker: RunTracker) -> None:
    """Score a safety-preserving adapter on its task and on the safety task."""
    tasks = [task, str(params.continual.safety_task)]
    evaluate_models(
        params, tracker, "continual", task, {"continual": (continual_path(task), tasks)}
    )


def evaluate_models(
    params: Params,
    tracker: RunTracker,
    group: str,
    item: str,
    rows: Mapping[str, tuple[Path | None, list[str]]],
) -> LoadedModel:
    """Score models, and write their verdicts and metrics; return the loaded base model.

    Args:
        params: the parameters of the run.
        tracker: the stage's tracker.
        group: the folder below `EVALUATIONS` and the metrics' folder `evaluate`.
        item: the stage's item; empty for the base model.
        rows: by model name its adapter's path (None for the base model) and its tasks.
    """
    from lori_core.core.files.atomic import replaced_folder
    from lori_core.data.pulled import read_examples
    from lori_core.evaluation.evaluate import evaluate
    from lori_core.methods.finetuned_model import open_model

    session = open_base(params, training=False)
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
            for setup, result in scores.get("setups", {}).items():
                if result["score"] is not None:
                    tracker.metrics({f"{prefix}score.{task}.setup-{setup}": result["score"]})
    write_json(METRICS / "evaluate" / group / f"{item or 'base'}.json", results)
    return session
