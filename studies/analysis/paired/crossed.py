"""Means over seeds and items together: a model with random effects of seeds and of items.

All seeds answer the same items, so a difference d[s, j] of seed s on item j is the true difference
plus an effect of the seed, an effect of the item and a rest, with variances σ_s², σ_j² and σ_e².
The variance of the mean over S seeds and I items is `σ_s²/S + σ_j²/I + σ_e²/(S·I)`. It is estimated
from the two-way analysis of variance, and the interval is Student's with Satterthwaite's degrees of
freedom. A percentile bootstrap of seeds and items needs no model, but with three seeds that differ
its 95 % intervals cover the truth in only about 76 % of simulated experiments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lori_core.evaluation import bounded_mean


@dataclass(frozen=True)
class Variances:
    """The variances of a mean over seeds and items.

    Attributes:
        seeds: σ_s², between seeds.
        items: for each set of items its σ_j², between items.
        rest: for each set of items its σ_e².
        counts: for each set its number of items.
    """

    seeds: float
    items: tuple[float, ...]
    rest: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and items with its uncertainty.

    Attributes:
        value: the mean.
        error: its standard error.
        freedom: the degrees of freedom of `error`.
    """

    value: float
    error: float
    freedom: float

    @property
    def reach(self) -> float:
        """Half the width of the 95 % interval."""
        return quantile(self.freedom) * self.error


def quantile(freedom: float, comparisons: int = 1) -> float:
    """Return Student's two-sided 95 % quantile, with Bonferroni's correction for comparisons."""
    from scipy.stats import norm, t

    level = 1 - 0.025 / comparisons
    return float(norm.ppf(level) if math.isinf(freedom) else t.ppf(level, freedom))


def mean(tables: Sequence[Any]) -> Mean:
    """Return the mean of differences over seeds and items.

    Args:
        tables: for each set of items the differences [seeds, items], with the same seeds in each;
            the result is the sum of their means. With one seed, the interval is over items alone.
    """
    seeds, items, rest = _squares(tables)
    count = tables[0].shape[0]
    value = math.fsum(float(table.mean()) for table in tables)
    by_items = math.fsum(items)
    # The rest is in both terms. Without the floor, a sum below either would be by chance.
    variance = max(seeds + by_items - math.fsum(rest), seeds, by_items)
    if variance == 0:
        return Mean(value, 0.0, max(1.0, count - 1.0))
    frees = [table.shape[1] - 1 for table in tables]
    below = math.fsum(v**2 / free for v, free in zip(items, frees, strict=True) if free)
    if count > 1:
        below += seeds**2 / (count - 1)
        below += math.fsum(
            v**2 / (free * (count - 1)) for v, free in zip(rest, frees, strict=True) if free
        )
    freedom = variance**2 / below if below else 1.0
    return Mean(value, math.sqrt(variance), max(freedom, count - 1.0, 1.0))


def _squares(tables: Sequence[Any]) -> tuple[float, list[float], list[float]]:
    """Return the variance of the mean from seeds' means, from items' means, and from the rest.

    The first two contain the rest as well. That of the seeds is of their sums over all sets, since
    a seed may have a common effect on all of them.
    """
    count = tables[0].shape[0]
    by_seed = sum(table.mean(axis=1) for table in tables)
    seeds = float(np.var(by_seed, ddof=1)) / count if count > 1 else 0.0
    items, rest = [], []
    for table in tables:
        size, by_item = table.shape[1], table.mean(axis=0)
        items.append(float(np.var(by_item, ddof=1)) / size if size > 1 else 0.0)
        left = table - table.mean(axis=1, keepdims=True) - by_item + table.mean()
        free = (count - 1) * (size - 1)
        rest.append(float(np.sum(left**2)) / free / (count * size) if free else 0.0)
    return seeds, items, rest


def variances(tables: Sequence[Any]) -> Variances:
    """Return the estimated variances of differences [seeds, items]; none is below 0.

    With one seed, the whole variance between items is `items`, and `seeds` is 0.
    """
    seeds, items, rest = _squares(tables)
    count, sizes = tables[0].shape[0], [table.shape[1] for table in tables]
    return Variances(
        seeds=max(0.0, count * (seeds - math.fsum(rest))),
        items=tuple(max(0.0, n * (i - r)) for n, i, r in zip(sizes, items, rest, strict=True)),
        rest=tuple(count * n * r for n, r in zip(sizes, rest, strict=True)),
        counts=tuple(sizes),
    )


def bounded_reach(tables: Sequence[Any], bounds: Sequence[float]) -> tuple[float, float]:
    """Return how far the interval over items reaches below and above, for bounded differences.

    It is that of `bounded_mean` of the items' means over seeds, and so is not 0 where all of them
    are equal; of several sets of items the reaches are added in quadrature.

    Args:
        tables: as in `mean`.
        bounds: for each set, the largest absolute value that a difference can have.
    """
    below, above = [], []
    for table, bound in zip(tables, bounds, strict=True):
        by_item = np.clip(table.mean(axis=0) / bound, -1, 1)
        low, high = bounded_mean.interval(by_item.tolist(), -1, 1)
        middle = float(by_item.mean())
        below.append(bound * (middle - low))
        above.append(bound * (high - middle))
    return math.hypot(*below), math.hypot(*above)
