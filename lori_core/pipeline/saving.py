"""Saving of a trained adapter with its metrics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lori_core.core.tracking import RunTracker
from lori_core.pipeline.adapter_facts import adapter_facts
from lori_core.pipeline.results import write_metrics

if TYPE_CHECKING:
    from lori_core.methods.finetuned_model import Trained
    from lori_core.methods.loaded_model import LoadedModel
    from lori_core.training.trainer import TrainingResult


def save_trained(
    session: LoadedModel,
    adapter: Trained,
    result: TrainingResult,
    path: Path,
    metrics: Path,
    task: str,
    tracker: RunTracker,
) -> None:
    """Save a trained adapter and its metrics, then delete the checkpoints of its training.

    Args:
        session: the base model.
        adapter: the trained adapter.
        result: the result of its training.
        path: the adapter's folder.
        metrics: the folder of the stage's metrics.
        task: the task, the name of the metrics file.
        tracker: the stage's tracker.
    """
    from lori_core.methods import finetuned_model
    from lori_core.methods.loaded_model import forget_checkpoints

    finetuned_model.save_model(adapter, path)
    facts = adapter_facts(adapter, path) | asdict(result)
    facts["trainable_share"] = result.trainable_parameters / session.parameters
    facts["method"] = adapter.info["method"]
    write_metrics(metrics, task, facts, tracker)
    forget_checkpoints(adapter.info["stage"])
    tracker.artifact(path)
