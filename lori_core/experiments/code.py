"""The code that each kind of point depends on, as files and folders of this package."""

from __future__ import annotations

from lori_core.stage_dependencies import (
    ADAPTERS,
    CALIBRATION,
    CONFIG,
    LOSS,
    MERGING,
    METHODS,
    MODULES,
    PEFT_FILES,
    SCORING,
    TUNING,
)

#: What the points of the experiments depend on besides their settings, by kind.
_POINT = (
    *ADAPTERS,
    "experiments/points.py",
    "experiments/results.py",
    *MODULES,
    *PEFT_FILES,
    "attaching.py",
    "sparse.py",
)
_MEASURING = ("experiments/measuring.py", "interference.py", "structure.py")
POINTS: dict[str, tuple[str, ...]] = {
    "train": (
        *_POINT,
        *CALIBRATION,
        *TUNING,
        "evaluation/decoding.py",
        "evaluation/generation.py",
        "evaluation/held_out.py",
        "experiments/training.py",
    ),
    "score": (*_POINT, *SCORING, *LOSS, *MERGING, "experiments/scoring.py"),
    "map": (*_POINT, *CONFIG, *_MEASURING),
    "orthogonality": (*_POINT, *CONFIG, *_MEASURING),
    "collect": (
        *_POINT,
        *CONFIG,
        "data/example.py",
        "models.py",
        "precision.py",
        "data/pulled.py",
        "experiments/collecting.py",
    ),
    "report": (
        *METHODS,
        "data/answers.py",
        "data/example.py",
        "evaluation",
        "files.py",
        "importances.py",
        "json_input.py",
        "mask_choices.py",
        "merge_methods.py",
        "registries/mask.py",
        "registries/merge_method.py",
        "registries/scorer.py",
        "registry.py",
        "report",
    ),
}
#: By kind of point, the kinds of what an extension may register that decide its result.
EXTENSIONS: dict[str, frozenset[str]] = {
    "train": frozenset({"importance", "training method"}),
    "score": frozenset({"merge method", "scorer"}),
    "report": frozenset({"importance", "merge method", "scorer", "training method"}),
}
