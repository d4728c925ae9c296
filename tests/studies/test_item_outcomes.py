"""The outcomes of items that a score point keeps in its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lori_core.core.files.atomic import write_jsonl
from studies.analysis import items
from studies.scoring import ITEMS_OF, _score_rows, item_outcomes


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


def test_a_choice_is_scored_by_generation_and_by_log_likelihood(tmp_path: Path) -> None:
    """Both rows are of the same items in the same order, so they are paired by item."""
    path = tmp_path / "nlu.jsonl"
    answers = [("a", True), ("b", False), ("a", True), ("c", False)]
    write_jsonl(path, [verdict(n, "true", "true") | {"correct": c} for n, c in answers])
    chosen = [("a", False), ("b", True), ("a", True), ("c", True)]
    rows = [{"id": name, "correct": correct, "picked": "true"} for name, correct in chosen]
    write_jsonl(tmp_path / "nlu.likelihood.jsonl", rows)
    share = {"metric": "accuracy", "low": 0.1, "high": 0.9, "n": 4}
    result = share | {"score": 0.5, "likelihood": share | {"score": 0.75}}
    generated, scored = _score_rows("nlu", result, path)
    assert generated == {
        "metric": "accuracy", "task": "nlu", "value": 0.5, "low": 0.1, "high": 0.9, "n": 4,
        "items": "1010", "item_set": items.digest(["a", "b", "a", "c"]),
    }  # fmt: skip
    assert scored == generated | {"metric": items.LIKELIHOOD, "value": 0.75, "items": "0111"}


def test_without_log_likelihood_there_is_one_score(tmp_path: Path) -> None:
    path = tmp_path / "nlu.jsonl"
    write_jsonl(path, [verdict("a", "true", "true") | {"correct": True}])
    result = {"metric": "accuracy", "score": 1.0, "low": 0.1, "high": 1.0, "n": 1}
    assert [row["metric"] for row in _score_rows("nlu", result, path)] == ["accuracy"]
