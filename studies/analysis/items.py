"""The outcome of each test item, as short text in a row.

Outcomes of right and wrong are one character for each item, `1` or `0`; other numbers, such as
held-out losses, have five significant digits and are separated by spaces. The items' order is that
of the test set, and `item_set` identifies the set: equal digests mean the same items in the same
order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

from lori_core.core.errors import DataError

#: The metric of multiple choice by log-likelihood, beside that of generated answers.
LIKELIHOOD = "likelihood_accuracy"
#: By how much the mean of the outcomes may differ from the row's value, relative to it.
ROUNDING = 1e-4


def fields(ids: Sequence[str], outcomes: Sequence[float]) -> dict[str, str]:
    """Return the fields of a row, `items` and `item_set`, for the items' ids and outcomes."""
    return {"items": encode(outcomes), "item_set": digest(ids)}


def digest(ids: Iterable[str]) -> str:
    """Return the digest of the items' ids in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def encode(outcomes: Sequence[float]) -> str:
    """Return outcomes as text."""
    if all(value in (0, 1) for value in outcomes):
        return "".join(str(int(value)) for value in outcomes)
    return " ".join(f"{value:.5g}" for value in outcomes) + (" " if len(outcomes) == 1 else "")


def decode(text: str, where: str) -> tuple[float, ...]:
    """Return the outcomes of a text by `encode`.

    Raises:
        DataError: the text is not one, or a number is not finite.
    """
    if set(text) <= {"0", "1"} and text:
        return tuple(float(sign) for sign in text)
    try:
        outcomes = tuple(float(part) for part in text.split())
    except ValueError:
        outcomes = ()
    if not outcomes or " " not in text or not all(map(math.isfinite, outcomes)):
        raise DataError(
            f"{where}: items: expected a 1 or a 0 for each item, or numbers with spaces between "
            f"them, got {text[:40]!r}"
        )
    return outcomes
