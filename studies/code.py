"""The code that each kind of point depends on, as files and folders of this package."""

from __future__ import annotations

from lori_core.core.stage_dependencies import (
    ADAPTERS,
    CALIBRATION,
    CONFIG,
    HARNESS,
    HELD_OUT,
    LOSS,
    MERGING,
    METHODS,
    MODULES,
    PEFT_FILES,
    SCORING,
    TUNING,
    VERDICTS,
)

#: The code that all kinds of points depend on.
_POINT = (
    *ADAPTERS,
    "studies/analysis/base_names.py",
    "studies/points.py",
    "studies/results.py",
    *MODULES,
    *PEFT_FILES,
    "adapters/attach.py",
    "adapters/sparse_parametrization.py",
)
_MEASURING = (
    "studies/measuring.py",
    "merging/interference.py",
    "adapters/masks/structured_mask.py",
)
#: The code that each kind of point depends on.
POINTS: dict[str, tuple[str, ...]] = {
    "train": (
        *_POINT,
        *CALIBRATION,
        *TUNING,
        "evaluation/inference/decoding.py",
        "evaluation/inference/generation.py",
        "evaluation/inference/key_value_cache.py",
        "evaluation/inference/packed_prompts.py",
        *HELD_OUT,
        "studies/training.py",
    ),
    "score": (
        *_POINT,
        *SCORING,
        *LOSS,
        *MERGING,
        *HELD_OUT,
        "evaluation/paired_comparison.py",
        "studies/analysis/items.py",
        "studies/scoring.py",
    ),
    "map": (*_POINT, *CONFIG, *_MEASURING),
    "orthogonality": (*_POINT, *CONFIG, *_MEASURING),
    "collect": (
        *_POINT,
        *CONFIG,
        "data/example.py",
        "models/base_model.py",
        "models/precision.py",
        "data/pulled.py",
        "studies/collecting.py",
    ),
    "report": (
        *METHODS,
        *VERDICTS,
        "adapters/masks/importances.py",
        "data/answers.py",
        "data/example.py",
        "merging/catalogue.py",
        "merging/merge_methods.py",
        "merging/on_safety.py",
        "merging/pruning.py",
        "merging/selective.py",
        "merging/shared_subspace.py",
        "merging/truncation.py",
        "report",
        "studies/analysis",
        "studies/page",
    ),
}
#: By kind of point, the kinds of extensions that decide its result.
EXTENSIONS: dict[str, frozenset[str]] = {
    "train": frozenset({"importance", "training method"}),
    "score": frozenset({HARNESS, "merge method", "scorer"}),
    "report": frozenset({"importance", "merge method", "scorer", "training method"}),
}
