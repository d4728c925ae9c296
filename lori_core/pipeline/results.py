"""The paths of the stages' outputs, and writing of their metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.core.files.atomic import write_json
from lori_core.core.tracking import RunTracker

ARTIFACTS = Path("artifacts")
METRICS = Path("metrics")
REPORT = Path("report")
EVALUATIONS = ARTIFACTS / "evaluations"
#: The file of a placeholder for an output that a task's method does not need.
UNUSED = "unused.json"


def calibrated_path(task: str) -> Path:
    """Return the path of the adapter of a task's calibration run."""
    return ARTIFACTS / task / "calibrated"


def mask_path(task: str) -> Path:
    """Return the path of a task's mask."""
    return ARTIFACTS / task / "mask.safetensors"


def adapter_path(task: str) -> Path:
    """Return the path of a task's adapter."""
    return ARTIFACTS / task / "adapter"


def continual_path(task: str) -> Path:
    """Return the path of a task's safety-preserving adapter."""
    return ARTIFACTS / "continual" / task / "adapter"


def merged_path(name: str) -> Path:
    """Return the path of a merged adapter."""
    return ARTIFACTS / "merged" / name


def own_losses_path(task: str) -> Path:
    """Return the path of a task's held-out losses with and without its own adapter."""
    return METRICS / "held_out" / f"{task}.json"


def weights_path(name: str) -> Path:
    """Return the path of the searched weights of a merge."""
    return ARTIFACTS / "merged" / f"{name}.weights.json"


def is_calibrated(task: str) -> bool:
    """Return whether a task has a calibrated adapter instead of a placeholder."""
    return not (calibrated_path(task) / UNUSED).is_file()


def write_metrics(folder: Path, item: str, facts: dict[str, Any], tracker: RunTracker) -> None:
    """Report a stage's facts (numbers as metrics, texts as tags) and write its metrics file.

    Args:
        folder: the folder of the stage's metrics.
        item: the stage's item, the name of the file.
        facts: the contents of the file.
        tracker: the stage's tracker.
    """
    numbers = {
        name: value
        for name, value in facts.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    tracker.metrics(numbers)
    tracker.tags({f"lori.{n}": v for n, v in facts.items() if isinstance(v, str)})
    write_json(folder / f"{item}.json", facts)
