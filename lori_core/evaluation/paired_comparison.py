"""Paired comparison of two models on the same test items: difference, interval and p-value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lori_core.core.errors import DataError
from lori_core.core.files.atomic import read_jsonl
from lori_core.evaluation import bounded_mean
from lori_core.evaluation.scoring.scorers import INCOHERENT, REFUSED
from lori_core.evaluation.statistics import paired_test

#: The rows to compare: `all`; `refuse`, harmful requests, for the refusal rate; `comply`, harmless
#: requests, for the over-refusal rate; `incoherent`, all rows, for the rate of incoherent outputs.
Rows = Literal["all", "refuse", "comply", "incoherent"]
#: The expected answers of a safety task.
SAFETY_ANSWERS = {"refuse", "comply"}
RESAMPLES = 10_000
#: The special tokens of common chat templates, with the names of the roles behind them.
_MARKS = re.compile(r"<\|[^<>|]*\|>(?:(?:system|user|assistant)\b)?|\[/?INST\]|</?s>")
SEED = 0


@dataclass(frozen=True)
class Comparison:
    """The difference between a model and a reference on the same items.

    Attributes:
        difference: the model's score minus the reference's.
        low: the lower end of its interval, 95 % by default.
        high: the upper end of its interval.
        p: two-sided p-value of the hypothesis that both score the same.
        n: the number of items compared.
        lost: the number of items on which the model does worse than the reference.
        gained: the number of items on which the model does better.
        left_out: the number of items that only the model's file has.
        missing: the number of items that only the reference's file has.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    lost: int
    gained: int
    left_out: int = 0
    missing: int = 0


def compare(
    model: Path,
    reference: Path,
    rows: Rows = "all",
    confidence: float = 0.95,
    *,
    shared: bool = False,
) -> Comparison:
    """Compare the verdicts of two evaluations on one test set.

    Items are matched by `id`; the outcome of an item with several outputs is the share of correct
    ones. The interval is `bounded_mean.interval` of the items' differences, which lie in [-1, 1].
    For outcomes of 0 and 1 the p-value is that of McNemar's exact test: it is below 0.05 exactly
    if the 95 % interval excludes 0. For other outcomes the p-value is that of a paired permutation
    test, and near 0.05 the two may disagree. Items that the protocol's score leaves out (`counted`
    is false) are left out here as well.

    Args:
        model: the model's JSON lines with `id`, `correct`, `parsed` and `answer`, one per output.
        reference: the JSON lines of the model to compare with.
        rows: `all` and `refuse` compare the shares of correct outputs, `comply` those of refused
            ones, `incoherent` those of incoherent ones.
        confidence: the confidence of the two-sided interval, in (0, 1).
        shared: whether to leave out items that only one of the files has.

    Raises:
        DataError: the files have different items, no item that counts, or a malformed line.
    """
    ours, theirs = outcomes(model, rows), outcomes(reference, rows)
    left_out, missing = len(ours.keys() - theirs.keys()), len(theirs.keys() - ours.keys())
    if shared and ours.keys() & theirs.keys():
        ours = {item: share for item, share in ours.items() if item in theirs}
        theirs = {item: share for item, share in theirs.items() if item in ours}
    elif left_out + missing:
        raise DataError(
            f"{model} and {reference}: {left_out + missing} ids are in only one of them; compare "
            "evaluations of one test set (evaluate both again)"
        )
    # Whole numbers, so that equal differences stay equal in floating point.
    scale = math.lcm(*(share.denominator for share in (*ours.values(), *theirs.values())))
    first = np.array([int(ours[item] * scale) for item in ours], dtype=np.float64)
    second = np.array([int(theirs[item] * scale) for item in ours], dtype=np.float64)
    low, high = bounded_mean.interval(((first - second) / scale).tolist(), -1, 1, confidence)
    return Comparison(
        difference=float(np.sum(first - second)) / scale / len(ours),
        low=low,
        high=high,
        p=_p_value(first, second, binary=scale == 1),
        n=len(ours),
        lost=int(np.sum(first < second)),
        gained=int(np.sum(first > second)),
        left_out=left_out,
        missing=missing,
    )


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """Read the verdicts that an evaluation wrote for a task.

    Raises:
        DataError: a row is not a verdict.
    """
    verdicts = read_jsonl(path)
    for number, row in enumerate(verdicts, start=1):
        named = isinstance(row, dict) and isinstance(row.get("id"), str)
        if not named or any(isinstance(row.get(key), dict | list) for key in ("answer", "sample")):
            raise DataError(
                f"{path}: row {number} is no verdict (needed: id, answer, correct, parsed); "
                "evaluate again"
            )
    return verdicts


def outcomes(path: Path, rows: Rows) -> dict[str, Fraction]:
    """Return each item's share of positive outcomes (`positive`), for the items that count.

    Raises:
        DataError: a row is not a verdict, or no row counts.
    """
    by_item: dict[str, list[bool]] = {}
    for number, row in enumerate(read_verdicts(path), start=1):
        try:
            if counts(row, rows):
                by_item.setdefault(row["id"], []).append(positive(row, rows))
        except (KeyError, TypeError):
            raise DataError(
                f"{path}: row {number} is no verdict (needed: id, answer, correct, parsed); "
                "evaluate again"
            ) from None
    if not by_item:
        raise DataError(f"{path}: no row has the answer {rows!r}, so there is nothing to compare")
    return {item: Fraction(sum(flags), len(flags)) for item, flags in by_item.items()}


def score_rows(*paths: Path) -> Rows:
    """Return the rows that a task's score counts: of a safety task the harmful requests, if any.

    Args:
        paths: verdicts of one or several models on the task.
    """
    answers = {row.get("answer") for path in paths for row in read_verdicts(path)}
    return "refuse" if "refuse" in answers <= SAFETY_ANSWERS else "all"


def is_safety(path: Path) -> bool:
    """Return whether these are verdicts on a safety task, whose answers are refuse or comply."""
    answers = {row.get("answer") for row in read_verdicts(path)}
    return bool(answers) and answers <= SAFETY_ANSWERS


def counts(row: Mapping[str, Any], rows: Rows) -> bool:
    """Return whether a verdict belongs to `rows` and counts for the protocol's score."""
    return bool(row.get("counted", True)) and (
        rows in ("all", "incoherent") or row["answer"] == rows
    )


def positive(row: Mapping[str, Any], rows: Rows) -> bool:
    """Return whether a verdict is positive: correct; refused (`comply`); or incoherent."""
    if rows == "incoherent":  # older versions wrote this reason instead of a class of its own
        return row["parsed"] == INCOHERENT or row.get("reason") == "the output is empty"
    return bool(row["parsed"] == REFUSED if rows == "comply" else row["correct"])


def _p_value(first: Any, second: Any, *, binary: bool) -> float:
    from scipy.stats import permutation_test

    if binary:
        return paired_test(first.astype(bool).tolist(), second.astype(bool).tolist())
    # Items without a difference are the same under every permutation.
    differ = first != second
    if differ.sum() < 2:
        return 1.0
    result = permutation_test(
        (first[differ], second[differ]),
        lambda a, b, axis: np.sum(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        random_state=np.random.default_rng(SEED),
    )
    return float(result.pvalue)


def without_template_tokens(prompt: str) -> str:
    """Return a rendered prompt without the special tokens of its chat template."""
    return _MARKS.sub("", prompt).strip()


def flipped(
    model: Path, reference: Path, rows: Rows = "all"
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the verdicts of a model and a reference on each item on which they differ.

    Items that only one of the files has, or that do not count, are left out; of several outputs
    for an item the first that differs is taken.

    Yields:
        The model's row and the reference's row; pairs with a positive reference come first.
    """
    theirs = {(row["id"], row.get("sample", 0)): row for row in read_verdicts(reference)}
    pairs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for row in read_verdicts(model):
        other = theirs.get((row["id"], row.get("sample", 0)))
        if other and counts(row, rows) and positive(row, rows) != positive(other, rows):
            pairs.setdefault(row["id"], (row, other))
    yield from sorted(pairs.values(), key=lambda pair: not positive(pair[1], rows))
