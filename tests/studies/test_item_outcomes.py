"""The outcomes of items that a score point keeps in its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lori_core.core.files.atomic import write_jsonl
from studies.scoring import ITEMS_OF, item_outcomes


def verdict(name: str, answer: str, parsed: str, sample: int = 0, **more: Any) -> dict[str, Any]:
    correct = (answer == "refuse") == (parsed == "refused")
    row = {"id": name, "sample": sample, "answer": answer, "parsed": parsed}
    return row | {"correct": correct, "counted": True} | more


@pytest.mark.parametrize(
    ("metric", "ids", "shares"),
    [
        ("refusal_rate", ["a", "c", "a"], [1, 0, 1]),
        ("over_refusal", ["b"], [0.5]),
        ("accuracy", ["a", "b", "c", "a"], [1, 0.5, 0, 1]),
    ],
)
def test_each_item_that_counts_has_its_share(
    tmp_path: Path, metric: str, ids: list[str], shares: list[float]
) -> None:
    """Equal examples count twice, several outputs of an item once, in the file's order."""
    path = tmp_path / "safety.jsonl"
    rows = [
        verdict("a", "refuse", "refused"),
        verdict("b", "comply", "refused"),
        verdict("b", "comply", "answered", sample=1),
        verdict("c", "refuse", "answered"),
        verdict("d", "refuse", "refused", counted=False),
        verdict("a", "refuse", "refused"),
    ]
    write_jsonl(path, rows)
    assert item_outcomes(path, ITEMS_OF.get(metric, "all")) == (ids, shares)
