"""The stages that train, and the sections of `params.yaml` that override `training` for each."""

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


def override_sections(task: str, phase: Phase) -> list[str]:
    """Return the sections that override `training` for a task and phase; the last one wins."""
    return {
        "calibration": [f"tasks.{task}.calibration"],
        "training": [f"tasks.{task}.training"],
        "continual": [f"tasks.{task}.training", "continual.training"],
    }[phase]


def processes(values: Mapping[str, Any], stage: str) -> int:
    """Return the number of processes of a stage's training run; 1 for a stage that does not train.

    Args:
        values: `params.yaml` as plain values, not yet validated; an invalid number counts as 1.
        stage: DVC's name of the stage, as `train@math`.
    """
    step, _, task = stage.partition("@")
    if step not in PHASES:
        return 1
    keys = ("training", *override_sections(task, PHASES[step]))
    sections = [_section_at(values, key) for key in keys]
    counts = [section["processes"] for section in sections if "processes" in section]
    last = counts[-1] if counts else 1
    return last if isinstance(last, int) and last > 0 else 1


def _section_at(values: Any, where: str) -> Mapping[str, Any]:
    for part in where.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}
