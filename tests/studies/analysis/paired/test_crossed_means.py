"""Intervals over seeds and items together: their coverage, and their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm, t

from lori_core.evaluation.statistics import interval, mean_interval
from studies.analysis.paired import crossed

#: Simulated experiments of each case; the count of intervals that cover is binomial.
MANY = 1500


def drawn(generator: Any, seeds: int, items: int, spread: tuple[float, float, float]) -> Any:
    """Return differences [seeds, items] of mean 0, with the spread of seeds, items and rest."""
    by_seed, by_item, rest = spread
    effects = by_seed * generator.normal(size=(seeds, 1)) + by_item * generator.normal(size=items)
    return effects + rest * generator.normal(size=(seeds, items))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "spread",
    [(0, 1, 1), (0.1, 1, 1), (0.3, 1, 1), (0.1, 0, 1), (1, 0.3, 0.3)],
    ids=["no-seeds", "few-seeds", "both", "no-items", "seeds"],
)
def test_intervals_over_seeds_and_items_cover(seeds: int, spread: Any) -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(MANY):
        found = crossed.mean([drawn(generator, seeds, 60, spread)])
        covered += abs(found.value) <= found.reach
    # Not below 94 % beyond chance: Satterthwaite's degrees of freedom are estimated.
    assert covered >= binom.ppf(0.001, MANY, 0.94)
    assert covered <= binom.ppf(0.999, MANY, 0.98)


def test_intervals_of_two_tasks_cover_though_their_seeds_go_together() -> None:
    generator = np.random.default_rng(8)
    covered = 0
    for _ in range(MANY):
        common = 0.2 * generator.normal(size=(4, 1))
        tables = [(common + drawn(generator, 4, items, (0, 1, 1))) / 2 for items in (40, 90)]
        found = crossed.mean(tables)
        covered += abs(found.value) <= found.reach
    assert binom.ppf(0.001, MANY, 0.94) <= covered <= binom.ppf(0.999, MANY, 0.98)


def test_intervals_of_right_and_wrong_cover() -> None:
    """Two models' answers, right with a probability by item and seed, in points."""
    generator = np.random.default_rng(9)
    covered = 0
    for _ in range(300):
        ease = generator.normal(0.8, 1.2, size=100)
        first = ease + generator.normal(0, 0.15, size=(3, 1))
        second = ease + generator.normal(0, 0.15, size=(3, 1)) + 0.3 * generator.normal(size=100)
        right = [(generator.random((3, 100)) < norm.cdf(a)) for a in (first, second)]
        table = 100 * (right[0].astype(float) - right[1])
        found, bounds = crossed.mean([table]), crossed.bounded_reach([table], [100])
        below, above = max(found.reach, bounds[0]), max(found.reach, bounds[1])
        covered += -above <= found.value <= below
    assert binom.ppf(0.001, 300, 0.94) <= covered


def test_one_seed_is_students_interval_over_its_items() -> None:
    values = [1.0, 4.0, 2.0, 9.0]
    found = crossed.mean([np.array([values])])
    low, high = mean_interval(values)
    assert (found.value - found.reach, found.value + found.reach) == pytest.approx((low, high))
    assert found.freedom == pytest.approx(3)


def test_seeds_alone_are_students_interval_over_seeds() -> None:
    table = np.repeat(np.array([[1.0], [2.0], [6.0]]), 50, axis=1)
    found = crossed.mean([table])
    low, high = mean_interval([1.0, 2.0, 6.0])
    assert (found.value - found.reach, found.value + found.reach) == pytest.approx((low, high))
    assert found.freedom == pytest.approx(2)


def test_what_seeds_repeat_does_not_narrow_the_interval() -> None:
    items = np.random.default_rng(1).normal(size=(1, 80))
    one = crossed.mean([items])
    five = crossed.mean([np.repeat(items, 5, axis=0)])
    assert five.reach == pytest.approx(one.reach)


def test_equal_differences_of_scores_are_not_certain() -> None:
    table = np.zeros((3, 23))
    assert crossed.mean([table]).reach == 0
    # All 23 items equal: the limit is that of 23 successes in 23 trials (0.025^(1/23)).
    below, above = crossed.bounded_reach([table], [100])
    assert (below, above) == pytest.approx([100 * (1 - interval(23, 23)[0])] * 2)
    both = crossed.bounded_reach([table, table], [50, 50])
    assert both == pytest.approx([math.hypot(below, below) / 2] * 2)


def test_variances_are_those_drawn() -> None:
    generator = np.random.default_rng(3)
    found = crossed.variances([drawn(generator, 200, 200, (0.5, 2, 1))])
    assert found.seeds == pytest.approx(0.25, rel=0.25)
    assert found.items[0] == pytest.approx(4, rel=0.25)
    assert found.rest[0] == pytest.approx(1, rel=0.05)
    assert found.counts == (200,)


@pytest.mark.parametrize("comparisons", [1, 10])
def test_quantiles(comparisons: int) -> None:
    assert crossed.quantile(2, comparisons) == pytest.approx(t.ppf(1 - 0.025 / comparisons, 2))
    assert crossed.quantile(math.inf) == pytest.approx(1.959964)
