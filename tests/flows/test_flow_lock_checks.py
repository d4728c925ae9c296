"""The parameters in `dvc.lock` against those in a merged adapter's metadata."""

from __future__ import annotations

from typing import Any

import pytest

from flows.lineage.ancestry import Node
from flows.lineage.verification.lock_checks import parameter_problems
from flows.versioning.dvc.lock_file import Entry, StageEntry
from lori_core.adapters.artifact_metadata import ArtifactMetadata

PATH = "artifacts/merged/safe"
SEARCH = {"by": "task", "steps": 4}


def merge(method: str, weights: list[float], settings: dict[str, Any]) -> Node:
    """Return a merged adapter with these weights, and its stage with these recorded settings."""
    entry = Entry(PATH, "0" * 32 + ".dir")
    params = {"merge.safe": {"method": method, "stage": "continual", **settings}}
    stage = StageEntry("merge@safe", "lori stage merge safe", {}, params, {PATH: entry})
    facts: dict[str, Any] = {"method": method, "weights": weights, "density": 0.3}
    metadata = ArtifactMetadata("merged adapter", "key", (), facts)
    return Node(PATH, "merged adapter", entry, stage, metadata)


@pytest.mark.parametrize(
    ("method", "weights", "settings"),
    [
        ("concat", [0.5, 0.5], {"weights": 0.5}),
        ("concat", [0.4, 0.6], {"weights": [0.4, 0.6]}),
        ("concat", [0.1, 0.9], {"weights": 0.5, "search": SEARCH}),
        ("concat", [0.1, 0.9], {"weights": 0.5, "search": {}}),
        ("ties", [0.1, 0.9], {"weights": 0.5, "density": 0.7, "search": SEARCH}),
        ("on_safety", [1.0, 0.5, 0.5], {"weights": 0.5}),
        ("on_safety", [1.0, 0.4, 0.6], {"weights": [0.4, 0.6], "search": None}),
        ("on_safety", [1.0, 0.1, 0.9], {"weights": [0.4, 0.6], "search": SEARCH}),
    ],
)
def test_weights_that_follow_from_the_settings_are_no_problem(
    method: str, weights: list[float], settings: dict[str, Any]
) -> None:
    assert list(parameter_problems(merge(method, weights, settings))) == []


@pytest.mark.parametrize(
    ("method", "weights", "settings"),
    [
        ("concat", [0.5, 0.4], {"weights": 0.5}),
        ("concat", [1.0, 0.4, 0.6], {"weights": [0.4, 0.6]}),
        ("on_safety", [1.0, 0.4, 0.5], {"weights": [0.4, 0.6]}),
        ("on_safety", [1.0, 0.4, 0.6], {"weights": 0.4, "search": None}),
        ("concat", [0.5, 0.5], {"weights": 0.5, "density": 0.4}),
    ],
)
def test_weights_and_density_of_other_settings_are_named(
    method: str, weights: list[float], settings: dict[str, Any]
) -> None:
    (problem,) = parameter_problems(merge(method, weights, settings))
    assert "stage merge@safe: params: merge.safe." in problem.text
