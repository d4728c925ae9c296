"""How a trained adapter is saved."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lori_core.stages.adapter_facts import adapter_facts
from lori_core.stages.results import write_metrics
from lori_core.tracking import RunTracker

if TYPE_CHECKING:
    from lori_core.session import Session
    from lori_core.training import TrainingResult
    from lori_core.tuned import Trained


def keep(
    session: Session,
    adapter: Trained,
    result: TrainingResult,
    path: Path,
    metrics: Path,
    task: str,
    tracker: RunTracker,
) -> None:
    """Save what was trained and its metrics, then forget the checkpoints."""
    from lori_core import tuned
    from lori_core.session import forget_checkpoints

    tuned.save_model(adapter, path)
    facts = adapter_facts(adapter, path) | asdict(result)
    facts["trainable_share"] = result.trainable_parameters / session.parameters
    facts["method"] = adapter.info["method"]
    write_metrics(metrics, task, facts, tracker)
    forget_checkpoints(adapter.info["stage"])
    tracker.artifact(path)
