"""Which stages train, and where `params.yaml` changes `training` for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Phase = Literal["calibration", "training", "continual"]
#: The stages that train, and the phase each of them follows.
PHASES: dict[str, Phase] = {
    "calibrate": "calibration",
    "train": "training",
    "continual": "continual",
}


def layers(task: str, phase: Phase) -> list[str]:
    """Return the sections that change `training` for a task and phase; the last decides."""
    return {
        "calibration": [f"tasks.{task}.calibration"],
        "training": [f"tasks.{task}.training"],
        "continual": [f"tasks.{task}.training", "continual.training"],
    }[phase]


def processes(values: Mapping[str, Any], stage: str) -> int:
    """Return how many processes a stage's training is spread over; 1 for a stage without one.

    Args:
        values: `params.yaml` as plain values, not yet validated: what is no count counts as 1.
        stage: as DVC names it, `train@math`.
    """
    step, _, task = stage.partition("@")
    if step not in PHASES:
        return 1
    said = [_at(values, where) for where in ("training", *layers(task, PHASES[step]))]
    counts = [section["processes"] for section in said if "processes" in section]
    last = counts[-1] if counts else 1
    return last if isinstance(last, int) and last > 0 else 1


def _at(values: Any, where: str) -> Mapping[str, Any]:
    for part in where.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}
