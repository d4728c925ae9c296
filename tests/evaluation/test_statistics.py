"""Intervals and tests against published values, identities and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lori_core.core.errors import InputError
from lori_core.evaluation.statistics import (
    holm,
    interval,
    mean_interval,
    paired_test,
    pass_at_k,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 1 - 0.025**0.1),
        (10, 10, 0.025**0.1, 1.0),
        (7, 10, 0.347547149940, 0.933260488822),
        (0, 1, 0.0, 0.975),
        (1, 1, 0.025, 1.0),
        (1, 100, 1 - 0.975**0.01, 0.054459385392),
    ],
)
def test_interval_has_the_known_values(successes: int, n: int, low: float, high: float) -> None:
    assert interval(successes, n) == pytest.approx((low, high), abs=1e-11)


def test_interval_is_that_of_scipy_and_symmetric() -> None:
    for successes, n, confidence in itertools.product((0, 3, 64), (64, 164), (0.8, 0.95, 0.99)):
        expected = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
        low, high = interval(successes, n, confidence)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert interval(n - successes, n, confidence) == pytest.approx((1 - high, 1 - low))


def test_interval_takes_numpy_integers() -> None:
    assert interval(np.int64(7), np.int64(10)) == interval(7, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "n: expected a whole number, at least 1, got 0"),
        ((11, 10), "successes: expected a whole number, at least 0 and at most 10, got 11"),
        ((-1, 10), "successes: expected .* got -1"),
        ((0.7, 10), "successes: expected .* got 0.7"),
        ((True, 10), "successes: expected .* got True"),
        ((1, 10, 1.0), "confidence: expected a number between 0 and 1, got 1.0"),
        ((1, 10, math.nan), "confidence"),
    ],
)
def test_interval_refuses(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        interval(*arguments)  # type: ignore[arg-type]


def test_means_have_students_interval() -> None:
    values = [0.4, 0.5, 0.55]
    for confidence in (0.5, 0.95):
        expected = stats.t.interval(confidence, 2, loc=sum(values) / 3, scale=stats.sem(values))
        assert mean_interval(values, confidence) == pytest.approx(expected)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[], [0.4], [1.0, math.nan], [math.inf, 1.0], [[1.0], [2.0]]])
def test_mean_interval_refuses(values: list[float]) -> None:
    with pytest.raises(InputError, match="values: expected at least two finite numbers, got"):
        mean_interval(values)
    with pytest.raises(InputError, match="confidence"):
        mean_interval([1.0, 2.0], 1.0)


@pytest.mark.parametrize(
    ("draw", "mean", "n", "least", "most"),
    [
        ("normal", 0.0, 5, 0.94, 0.96),
        ("standard_exponential", 1.0, 13, 0.88, 0.91),
        ("standard_exponential", 1.0, 50, 0.93, 0.95),
        ("logistic", 0.0, 20, 0.94, 0.96),
    ],
)
def test_mean_interval_covers_as_often_as_is_said(
    draw: str, mean: float, n: int, least: float, most: float
) -> None:
    """Simulated with a fixed seed; 20,000 samples tell a coverage to about 0.003."""
    samples = getattr(np.random.default_rng(0), draw)(size=(20_000, n))
    reach = np.array([mean_interval(row)[1] for row in samples[:200]]) - samples[:200].mean(axis=1)
    errors = samples.std(axis=1, ddof=1) / math.sqrt(n) * stats.t.ppf(0.975, n - 1)
    assert reach == pytest.approx(errors[:200])
    assert least < np.mean(abs(samples.mean(axis=1) - mean) <= errors) < most


def _pair(only_a: int, only_b: int, same: int = 5) -> tuple[list[bool], list[bool]]:
    a = [True] * only_a + [False] * only_b + [True] * same
    b = [False] * only_a + [True] * only_b + [True] * same
    return a, b


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (6, 2, 0.2890625), (10, 0, 2 / 1024), (3, 3, 1.0), (0, 6, 0.03125)],
)
def test_paired_test_has_the_known_values(only_a: int, only_b: int, p: float) -> None:
    assert paired_test(*_pair(only_a, only_b)) == p
    assert paired_test(*_pair(only_b, only_a, same=0 if only_a + only_b else 1)) == p


def test_paired_test_is_the_binomial_test_also_for_many() -> None:
    expected = stats.binomtest(700, 1300, 0.5).pvalue
    assert paired_test(*_pair(700, 600)) == pytest.approx(expected, rel=1e-9)


def test_paired_test_refuses_unequal_or_empty_lists() -> None:
    with pytest.raises(InputError, match="got 1 and 2"):
        paired_test([True], [True, False])
    with pytest.raises(InputError, match="got 0 and 0"):
        paired_test([], [])


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample() -> None:
    for n, c, k in itertools.product((1, 5, 8), (0, 1, 4, 5), (1, 2, 5)):
        if c > n or k > n:
            continue
        subsets = list(itertools.combinations(range(n), k))
        expected = sum(min(subset) < c for subset in subsets) / len(subsets)
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-15)
    assert pass_at_k(20, 3, 1) == 0.15
    assert pass_at_k(20, 11, 10) == 1.0
    assert pass_at_k(100_000, 1, 1) == 1e-5


@pytest.mark.parametrize("arguments", [(0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 1, 6), (5, 1, 0)])
def test_pass_at_k_refuses(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="expected a whole number"):
        pass_at_k(*arguments)


@pytest.mark.parametrize(
    ("p_values", "rejected"),
    [
        ([], []),
        ([0.05], [True]),
        ([0.051], [False]),
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),
        ([0.02, 0.02, 0.02], [False, False, False]),
        ([0.01, 0.025, 0.05], [True, True, True]),
    ],
)
def test_holm_rejects_from_the_smallest_p_value_on(
    p_values: list[float], rejected: list[bool]
) -> None:
    assert holm(p_values) == rejected
