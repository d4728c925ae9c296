"""The power of a comparison over seeds and items, and the fewest of both that reach a power.

With the variances of `crossed` a difference has the standard error
`√(σ_s²/S + σ_j²/I + σ_e²/(S·I))`. The test estimates it from three independent mean squares. The
power is the mean over draws of these of the probability that the difference, which is normal, is
further from the threshold than the interval of `crossed.mean` reaches.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import fmean, variance
from typing import Any

import numpy as np

from studies.analysis.paired import crossed, differences
from studies.analysis.paired.differences import Difference
from studies.analysis.rows import Experiment
from studies.analysis.verdicts import Part

#: The numbers of seeds and of items that are tried.
SEEDS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50)
ITEMS = (25, 50, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)
#: The number of draws of the mean squares, and their seed.
DRAWS, SEED = 300, 0


@dataclass(frozen=True)
class Spread:
    """The variances of one comparison, as in `crossed.Variances`, with each set's items alike.

    Attributes:
        seeds: σ_s².
        items: σ_j², summed over the sets of items.
        rest: σ_e², summed over the sets of items.
        paired: whether they are from outcomes of items. If not, σ_j² is unknown and 0 here, so that
            a plan is a lower bound.
        equivalence: whether the comparison has a threshold on both sides.
    """

    seeds: float
    items: float
    rest: float
    paired: bool = True
    equivalence: bool = False


def spread(experiment: Experiment, part: Part) -> Spread | None:
    """Return the variances of a comparison in a pilot; None with fewer than two seeds."""
    difference = part.difference
    if difference is None or difference.seeds < 2 or not part.terms:
        return None
    tables = differences.tables_of(experiment, part.cells, part.terms)
    if tables is not None:
        found = crossed.variances([table.values for table in tables])
        items, rest = math.fsum(found.items), math.fsum(found.rest)
        return Spread(found.seeds, items, rest, True, part.equivalence)
    return _without_items(experiment, part, difference)


def _without_items(experiment: Experiment, part: Part, difference: Difference) -> Spread:
    """Return the variances from the seeds' differences and the intervals of their scores.

    The variance between seeds contains that of the items' chance, so the latter is at most that.
    """
    values, reaches, items = differences.by_seed(experiment, part.cells, part.terms)
    between = variance(values)
    if not reaches or not items:
        return Spread(between, 0.0, 0.0, False, part.equivalence)
    chance = fmean(reach**2 for reach in reaches) / crossed.quantile(math.inf) ** 2
    chance = min(chance, between)
    return Spread(between - chance, 0.0, chance * items, False, part.equivalence)


def power(found: Spread, distance: float, seeds: int, items: int) -> float:
    """Return the probability that a comparison is told.

    Args:
        found: its variances.
        distance: how far the true difference is from the threshold, or from both of an
            equivalence test.
        seeds: S, at least 2.
        items: I of each set of items, at least 2.
    """
    from scipy.special import ndtr, stdtrit

    chance = found.rest / (seeds * items)
    frees = (seeds - 1, items - 1, (seeds - 1) * (items - 1))
    expected = (found.seeds / seeds + chance, found.items / items + chance, chance)
    error = math.sqrt(sum(expected[:2]) - chance)
    if error == 0:
        return 1.0
    by_seed, by_item, rest = (v * d for v, d in zip(expected, _drawn(frees), strict=True))
    drawn = np.maximum(by_seed + by_item - rest, np.maximum(by_seed, by_item))
    below = sum(v**2 / free for v, free in zip((by_seed, by_item, rest), frees, strict=True))
    freedom = np.maximum(drawn**2 / below, seeds - 1.0)
    inside = (distance - stdtrit(freedom, 0.975) * np.sqrt(drawn)) / error
    told = ndtr(inside)
    return float(np.mean(np.maximum(0.0, 2 * told - 1) if found.equivalence else told))


@cache
def _drawn(frees: tuple[int, ...]) -> Any:
    """Return draws of mean squares with these degrees of freedom and mean 1 [3, draws]."""
    generator = np.random.default_rng(SEED)
    return np.array([generator.chisquare(free, DRAWS) / free for free in frees])


def _reaches(reached: Callable[[int, int], float], wanted: float, seeds: int, items: int) -> bool:
    return reached(seeds, items) >= wanted


@dataclass(frozen=True)
class Need:
    """The cheapest numbers with which all comparisons of a claim are told.

    Attributes:
        seeds: the number of seeds.
        items: the number of test items or held-out examples of each task; 0 if they do not matter.
        power: the probability that all comparisons are told.
        cost: by the function of `cheapest`.
    """

    seeds: int
    items: int
    power: float
    cost: float


def cheapest(
    comparisons: Sequence[tuple[Spread, float]],
    wanted: float,
    cost: Callable[[int, int], float],
) -> Need | None:
    """Return the cheapest plan that reaches a power; None if none of `SEEDS` and `ITEMS` does.

    The power of several comparisons that must all be told is the product of their powers, as if
    they were independent.

    Args:
        comparisons: each comparison's variances and distance.
        wanted: the power to reach, in (0, 1).
        cost: returns the cost of a number of seeds and items.
    """
    matter = any(found.items or found.rest for found, _ in comparisons)

    def reached(seeds: int, items: int) -> float:
        return math.prod(power(found, away, seeds, items) for found, away in comparisons)

    plans = []
    for seeds in SEEDS:
        place = bisect_left(ITEMS, True, key=partial(_reaches, reached, wanted, seeds))
        if place < len(ITEMS):
            items = ITEMS[place] if matter else ITEMS[0]
            number = items if matter else 0
            plans.append(Need(seeds, number, reached(seeds, items), cost(seeds, items)))
    return min(plans, key=lambda plan: (plan.cost, plan.seeds), default=None)
