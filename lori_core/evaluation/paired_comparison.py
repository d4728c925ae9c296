"""Two models on the same test items: how much they differ, and whether that is chance."""

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

#: Which rows count: all of them; those to refuse, for the refusal rate; those to answer, for the
#: rate of over-refusal; all of them, for the rate of incoherent outputs.
Rows = Literal["all", "refuse", "comply", "incoherent"]
RESAMPLES = 10_000
#: The special tokens of the usual chat templates, and the roles that they name.
_MARKS = re.compile(r"<\|[^<>|]*\|>(?:(?:system|user|assistant)\b)?|\[/?INST\]|</?s>")
SEED = 0


@dataclass(frozen=True)
class Comparison:
    """How far a model is from a reference on the same items.

    Attributes:
        difference: the model's score less the reference's.
        low: the lower end of its interval, of 95 % unless another confidence was asked for.
        high: the upper end.
        p: two-sided p-value of "both score the same".
        n: items compared.
        lost: items that the model does worse than the reference.
        gained: items that it does better.
        left_out: items of the model that the reference was not asked.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    lost: int
    gained: int
    left_out: int = 0


def compare(
    model: Path,
    reference: Path,
    rows: Rows = "all",
    confidence: float = 0.95,
    *,
    shared: bool = False,
) -> Comparison:
    """Compare the verdicts that two evaluations of one test set left.

    Items are matched by `id`; where one was answered several times its outcome is the share of
    correct answers. The interval is `bounded_mean.interval` of the items' differences, which are
    from -1 to 1. The p-value is McNemar's exact test for outcomes of 0 and 1: it is below 0.05
    exactly where the interval of 95 % excludes 0. Otherwise it is that of a paired permutation
    test, and near 0.05 the two may disagree. Items that the protocol's score leaves out (`counted`
    is false) are left out here, too.

    Args:
        model: JSON lines with `id`, `correct`, `parsed` and `answer`, one for each output.
        reference: the same of the model to compare with.
        rows: `all` and `refuse` compare how many are correct, `comply` how many are refused,
            `incoherent` how many are incoherent.
        confidence: of the two-sided interval.
        shared: leave out the items that only one of the files has.

    Raises:
        DataError: the files hold other items, none that counts, or lines of another form.
    """
    ours, theirs = outcomes(model, rows), outcomes(reference, rows)
    differing, left_out = len(ours.keys() ^ theirs.keys()), len(ours.keys() - theirs.keys())
    if shared and ours.keys() & theirs.keys():
        ours = {item: share for item, share in ours.items() if item in theirs}
        theirs = {item: share for item, share in theirs.items() if item in ours}
    elif differing:
        raise DataError(
            f"{model} and {reference}: {differing} ids are in only one of them; compare "
            "evaluations of one test set (evaluate both again)"
        )
    # Whole numbers, so that equal differences are equal in floating point too.
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
    )


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """Read the rows that an evaluation kept of a task.

    Raises:
        DataError: for a row that is no verdict.
    """
    found = read_jsonl(path)
    for number, row in enumerate(found, start=1):
        named = isinstance(row, dict) and isinstance(row.get("id"), str)
        if not named or any(isinstance(row.get(key), dict | list) for key in ("answer", "sample")):
            raise DataError(
                f"{path}: row {number} is no verdict (needed: id, answer, correct, parsed); "
                "evaluate again"
            )
    return found


def outcomes(path: Path, rows: Rows) -> dict[str, Fraction]:
    """Return each counting item's share of positive outcomes."""
    found: dict[str, list[bool]] = {}
    for number, row in enumerate(read_verdicts(path), start=1):
        try:
            if counts(row, rows):
                found.setdefault(row["id"], []).append(positive(row, rows))
        except (KeyError, TypeError):
            raise DataError(
                f"{path}: row {number} is no verdict (needed: id, answer, correct, parsed); "
                "evaluate again"
            ) from None
    if not found:
        raise DataError(f"{path}: no row has the answer {rows!r}, so there is nothing to compare")
    return {item: Fraction(sum(flags), len(flags)) for item, flags in found.items()}


def counts(row: Mapping[str, Any], rows: Rows) -> bool:
    """Say whether a verdict is one of the rows, and the protocol's score does not leave it out."""
    return bool(row.get("counted", True)) and (
        rows in ("all", "incoherent") or row["answer"] == rows
    )


def positive(row: Mapping[str, Any], rows: Rows) -> bool:
    """Say whether a verdict is what the share over `rows` counts."""
    if rows == "incoherent":  # the reason is that of older verdicts, which had no such class
        return row["parsed"] == INCOHERENT or row.get("reason") == "the output is empty"
    return bool(row["parsed"] == REFUSED if rows == "comply" else row["correct"])


def _p_value(first: Any, second: Any, *, binary: bool) -> float:
    from scipy.stats import permutation_test

    if binary:
        return paired_test(first.astype(bool).tolist(), second.astype(bool).tolist())
    # Items without a difference stay as they are under every exchange.
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


def spoken(prompt: str) -> str:
    """Return a rendered prompt without the marks of a chat template: what was said."""
    return _MARKS.sub("", prompt).strip()


def flipped(
    model: Path, reference: Path, rows: Rows = "all"
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield what a model and a reference wrote for each item that they answered otherwise.

    Items that only one of them has, or that do not count, are left out; of several outputs for an
    item the first that differs is taken.

    Yields:
        The model's row, then the reference's: where the reference was right first.
    """
    theirs = {(row["id"], row.get("sample", 0)): row for row in read_verdicts(reference)}
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for row in read_verdicts(model):
        other = theirs.get((row["id"], row.get("sample", 0)))
        if other and counts(row, rows) and positive(row, rows) != positive(other, rows):
            found.setdefault(row["id"], (row, other))
    yield from sorted(found.values(), key=lambda pair: not positive(pair[1], rows))
