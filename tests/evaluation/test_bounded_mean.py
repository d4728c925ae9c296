"""Limits of bounded means against closed forms, integrals and samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from lori_core.core.errors import InputError
from lori_core.evaluation import statistics
from lori_core.evaluation.bounded_mean import interval, items_needed, p_value


def changes(lost: int, gained: int, n: int) -> list[float]:
    return [-1.0] * lost + [1.0] * gained + [0.0] * (n - lost - gained)


@pytest.mark.parametrize("n", [1, 2, 10, 164, 5000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_interval_of_binary_outcomes_is_clopper_and_pearsons(n: int, confidence: float) -> None:
    for right in {0, 1, n // 3, n}:
        found = interval([1] * right + [0] * (n - right), 0, 1, confidence)
        assert found == pytest.approx(statistics.interval(right, n, confidence), abs=1e-10)


@pytest.mark.parametrize("n", [1, 7, 149, 20_000])
def test_without_gains_the_p_value_is_binomial(n: int) -> None:
    for lost, margin in itertools.product((0, 1, n // 2), (1e-3, 0.05, 0.7)):
        found = p_value(changes(min(lost, n), 0, n), -margin, -1)
        assert found == pytest.approx(stats.binom.cdf(min(lost, n), n, margin), abs=1e-11)


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (3, 9), (9, 3), (5, 5), (200, 260), (0, 0)])
def test_at_0_the_p_value_is_mcnemars(lost: int, gained: int) -> None:
    found = p_value(changes(lost, gained, 500), 0, -1)
    assert found == pytest.approx(stats.binom.sf(gained - 1, lost + gained, 0.5), abs=1e-11)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "bound"),
    [(0, 1, 3, -0.1), (2, 3, 30, -0.1), (7, 1, 27, -0.02), (25, 1, 57, -0.1), (40, 9, 400, 0.02)],
)
def test_the_interval_of_losses_and_gains_is_an_integral_over_the_gains(
    lost: int, gained: int, n: int, bound: float
) -> None:
    """With G ~ Beta(c, n + 1 - c), the losses are (1 - G) · Beta(b + 1, n - b - c)."""

    def integrand(share: float) -> float:
        least = min(max((share - bound) / (1 - share), 0.0), 1.0)
        tail = special.betaincc(lost + 1, n - lost - gained, least)
        return float(stats.beta.pdf(share, gained, n + 1 - gained) * tail)

    ends = (0, min(1.0, (1 + bound) / 2))
    kink = [bound] if bound > 0 else None
    expected = integrate.quad(integrand, *ends, points=kink, epsabs=1e-12, limit=200)[0]
    assert p_value(changes(lost, gained, n), bound, -1) == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_shares_is_a_bootstrap_with_one_more_worst_item() -> None:
    random = np.random.default_rng(2)
    shares = random.integers(0, 6, 12) / 5
    weights = random.dirichlet(np.ones(13), size=400_000)
    means = weights @ np.append(shares, 0.0)
    for mean in (0.2, 0.35, 0.5):
        assert p_value(shares, mean, 0) == pytest.approx(np.mean(means <= mean), abs=4e-3)
    low, high = interval(shares, 0, 1, 0.9)
    assert low == pytest.approx(np.quantile(means, 0.05), abs=2e-3)
    assert high == pytest.approx(np.quantile(weights @ np.append(shares, 1.0), 0.95), abs=2e-3)


def test_outcomes_that_agree_leave_room() -> None:
    low, high = interval([0.5] * 30, 0, 1)
    end = 0.5 * (1 - 0.025 ** (1 / 30))
    assert (low, high) == pytest.approx((0.5 - end, 0.5 + end))
    assert interval([1, 1, 1], -1, 1)[1] == 1.0
    assert interval([-1, -1], -1, 1)[0] == -1.0


def test_the_interval_is_symmetric_and_repeatable() -> None:
    shares = [-0.75, -0.25, 0.0, 0.0, 0.5]
    low, high = interval(shares, -1, 1)
    assert interval([-share for share in shares], -1, 1) == (-high, -low)
    assert interval(shares[::-1], -1, 1) == (low, high)


def test_very_many_different_values_are_rounded_to_the_safe_side() -> None:
    values = np.random.default_rng(1).random(3000)
    low, high = interval(values, 0, 1)
    reach = 1.96 * values.std() / math.sqrt(3000)
    for found, expected in ((values.mean() - low, reach), (high - values.mean(), reach)):
        assert expected < found < expected + 0.002


@pytest.mark.parametrize(("n", "samples"), [(10, 20), (60, 5)])
@pytest.mark.parametrize("spread", [0.2, 4.0])
def test_the_interval_covers_the_mean_of_shares(n: int, samples: int, spread: float) -> None:
    """Simulated with a fixed seed: items of differing difficulty, each answered several times."""
    random, covered = np.random.default_rng(n), 0
    for _ in range(200):
        shares = random.binomial(samples, random.beta(0.8 * spread, 0.2 * spread, n)) / samples
        low, high = interval(shares, 0, 1)
        covered += low <= 0.8 <= high
    assert covered >= stats.binom.ppf(0.001, 200, 0.95)


@pytest.mark.parametrize(
    ("margin", "confidence", "n"),
    [(0.02, 0.95, 149), (0.05, 0.95, 59), (0.1, 0.95, 29), (0.1, 0.99, 44), (0.5, 0.6, 2)],
)
def test_items_needed_are_the_least_that_show_a_margin(
    margin: float, confidence: float, n: int
) -> None:
    assert items_needed(margin, confidence) == n
    assert p_value([0.0] * n, -margin, -1) <= 1 - confidence < p_value([0.0] * (n - 1), -margin, -1)


def test_a_margin_of_0_needs_no_finite_number_of_items() -> None:
    assert items_needed(0.0, 0.95) is None
    assert items_needed(1e-6, 0.95) == 2_995_731
    assert items_needed(0.999, 0.95) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "values: expected at least one number"),
        ([math.nan], "values: expected at least one number"),
        ([[0.5]], "values: expected at least one number"),
        ([0.5, 1.5], "values: expected numbers from 0 to 1, got 0.5 to 1.5"),
    ],
)
def test_other_values_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        interval(values, 0, 1)
    with pytest.raises(InputError, match="confidence: expected a number between 0 and 1, got 1"):
        interval([0.5], 0, 1, 1)
