"""Where the stages' outputs lie, and how what was trained or merged is kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.config import Params
from lori_core.files import write_json
from lori_core.tracking import RunTracker

if TYPE_CHECKING:
    from lori_core.adapter import Adapter
    from lori_core.session import Session
    from lori_core.training import TrainingResult
    from lori_core.tuned import Tuned

ARTIFACTS = Path("artifacts")
METRICS = Path("metrics")
REPORT = Path("report")
EVALUATIONS = ARTIFACTS / "evaluations"


def calibrated_path(task: str) -> Path:
    """Where a task's LoRI-D adapter is kept."""
    return ARTIFACTS / task / "calibrated"


def mask_path(task: str) -> Path:
    """Where a task's mask is kept."""
    return ARTIFACTS / task / "mask.safetensors"


def adapter_path(task: str) -> Path:
    """Where a task's LoRI-S adapter is kept."""
    return ARTIFACTS / task / "adapter"


def continual_path(task: str) -> Path:
    """Where a task's safety-preserving adapter is kept."""
    return ARTIFACTS / "continual" / task / "adapter"


def merged_path(name: str) -> Path:
    """Where a merged adapter is kept."""
    return ARTIFACTS / "merged" / name


def uses_masks(params: Params, task: str) -> bool:
    """Say whether a task's method calibrates a mask and trains inside it."""
    return params.tasks[task].method_name == "lori-s"


def keep(
    session: Session,
    adapter: Adapter | Tuned,
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


def adapter_facts(adapter: Adapter | Tuned, path: Path) -> dict[str, Any]:
    """Return what identifies a saved adapter: its file's SHA-256 and counts, its recipe's keys."""
    from lori_core.tuned import facts

    recipe = adapter.info.get("recipe", adapter.info)
    kept = {"content_key": recipe["content_key"], "parents": _parent_keys(recipe)}
    return facts(adapter, path) | kept


def _parent_keys(recipe: dict[str, Any]) -> list[str]:
    """Return the content keys of what an adapter was trained on top of, or merged from."""
    parents = recipe["parents"]
    return [parent["content_key"] if isinstance(parent, dict) else parent for parent in parents]


def write_metrics(folder: Path, item: str, facts: dict[str, Any], tracker: RunTracker) -> None:
    """Report a stage's facts, numbers as metrics and texts as tags, and write them to its file."""
    numbers = {
        name: value
        for name, value in facts.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    tracker.metrics(numbers)
    tracker.tags({f"lori.{n}": v for n, v in facts.items() if isinstance(v, str)})
    write_json(folder / f"{item}.json", facts)
