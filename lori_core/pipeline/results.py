"""Where the stages' outputs lie, and how their metrics are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.core.files.atomic import write_json
from lori_core.core.tracking import RunTracker

ARTIFACTS = Path("artifacts")
METRICS = Path("metrics")
REPORT = Path("report")
EVALUATIONS = ARTIFACTS / "evaluations"
#: Stands in the place of what a task's method has no use for.
UNUSED = "unused.json"


def calibrated_path(task: str) -> Path:
    """Where the adapter is kept that a task's mask is taken from."""
    return ARTIFACTS / task / "calibrated"


def mask_path(task: str) -> Path:
    """Where a task's mask is kept."""
    return ARTIFACTS / task / "mask.safetensors"


def adapter_path(task: str) -> Path:
    """Where a task's adapter is kept."""
    return ARTIFACTS / task / "adapter"


def continual_path(task: str) -> Path:
    """Where a task's safety-preserving adapter is kept."""
    return ARTIFACTS / "continual" / task / "adapter"


def merged_path(name: str) -> Path:
    """Where a merged adapter is kept."""
    return ARTIFACTS / "merged" / name


def is_calibrated(task: str) -> bool:
    """Say whether a task's mask was taken from an adapter, and no note stands in its place."""
    return not (calibrated_path(task) / UNUSED).is_file()


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
