"""What a model card says an adapter is."""

from __future__ import annotations

import pytest

from flows.lineage.ancestry import Node
from flows.serving.card import PAPER, _what
from flows.versioning.dvc.lock_file import Entry
from lori_core.adapters.artifact_metadata import ArtifactMetadata
from lori_core.methods.catalogue import METHODS


def said(stage: str, method: str | None) -> str:
    """Return the card's sentence about an adapter of the task math."""
    facts = {"task": "math", "stage": f"{stage}@math"} | ({"method": method} if method else {})
    metadata = ArtifactMetadata("adapter", "key", (), facts)
    path = "artifacts/math/adapter"
    return _what(Node(path, "adapter", Entry(path, "0" * 32 + ".dir"), metadata=metadata))


@pytest.mark.parametrize(
    ("stage", "method", "name"),
    [
        ("calibrate", "lori-d", "LoRI-D"),
        ("train", "lori-s", "LoRI-S"),
        ("train", "lori-d", "LoRI-D"),
        ("continual", "lori-s", "safety-preserving LoRI-S"),
        ("continual", "lori-d", "safety-preserving LoRI-D"),
        ("calibrate", None, "LoRI-D"),
        ("continual", None, "safety-preserving LoRI-S"),
    ],
)
def test_the_card_names_the_method_that_trained_an_adapter(
    stage: str, method: str | None, name: str
) -> None:
    assert said(stage, method) == f"A {name} adapter of the task math, made with {PAPER}"


def test_the_card_names_a_method_that_protects_the_safety_adapter() -> None:
    about = METHODS["lori-d-mix"].about
    assert said("continual", "lori-d-mix") == (
        "A safety-preserving LoRI-D adapter of the task math, trained by lori-d-mix "
        f"({about}), made with {PAPER}"
    )
