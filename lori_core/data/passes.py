"""Split the examples of an optimizer step into passes of a limited number of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lori_core.data.prompts import Encoded

Collate = Callable[[Sequence[Encoded]], dict[str, Any]]


def split(
    rows: Sequence[Encoded], tokens: int | None, collate: Collate, *, packed: bool
) -> list[dict[str, Any]]:
    """Return the collated passes of a step's examples; every example is in exactly one of them.

    Args:
        rows: the examples.
        tokens: the most tokens of a pass, padding included and shared prefixes counted once; None
            for a single pass. A longer example is a pass of its own.
        collate: packs or pads examples; its `input_ids` hold the tokens of a pass.
        packed: whether `collate` packs. Then examples with a common prefix are put into one pass,
            otherwise examples of similar length.
    """
    whole = collate(rows)
    if tokens is None or len(rows) == 1 or size(whole) <= tokens:
        return [whole]
    rows = sorted(rows, key=(lambda row: row.prompt + row.target) if packed else len)
    limit = max(tokens, *(len(row) for row in rows))
    count = min(len(rows), max(2, math.ceil(size(whole) / limit)))
    while True:
        parts = [collate(part) for part in _equal_parts(rows, count)]
        if count == len(rows) or all(size(part) <= limit for part in parts):
            return parts
        count += 1


def size(inputs: dict[str, Any]) -> int:
    """Return the number of tokens of a collated pass, padding included."""
    return int(inputs["input_ids"].numel())


def examples(inputs: dict[str, Any]) -> int:
    """Return the number of examples of a collated pass."""
    return len(inputs["counts"] if "counts" in inputs else inputs["labels"])


def _equal_parts(rows: Sequence[Encoded], count: int) -> list[Sequence[Encoded]]:
    """Return `count` consecutive parts, none empty, of about the same number of tokens."""
    ends = np.cumsum([len(row) for row in rows])
    middles = ends - np.array([len(row) for row in rows]) / 2
    cuts = np.searchsorted(middles, ends[-1] * np.arange(1, count) / count)
    for number in range(count - 1):  # at least one row before each cut and after it
        least = int(cuts[number - 1]) + 1 if number else 1
        cuts[number] = min(max(int(cuts[number]), least), len(rows) - (count - 1 - number))
    edges = [0, *cuts.tolist(), len(rows)]
    return [rows[a:b] for a, b in pairwise(edges)]
