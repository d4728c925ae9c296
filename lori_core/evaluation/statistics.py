"""Confidence intervals of scores, McNemar's test, Holm's correction, and pass@k."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from lori_core.core.errors import InputError


def interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper–Pearson) interval of a success rate.

    With `α = 1 - confidence` and `B(q; a, b)` the q-quantile of the Beta distribution,
    `low = B(α/2; k, n-k+1)` and `high = B(1-α/2; k+1, n-k)`; `low` is 0 at k = 0,
    `high` is 1 at k = n.

    Args:
        successes: k, from 0 to n.
        n: number of independent trials, at least 1.
        confidence: the least probability with which the interval covers the true rate, in (0, 1).

    Raises:
        InputError: an argument is out of range.
    """
    from scipy.special import betaincinv

    _check_confidence(confidence)
    _check_count("n", n, 1)
    _check_count("successes", successes, 0, n)
    alpha = 1 - confidence
    low = betaincinv(successes, n - successes + 1, alpha / 2) if successes else 0.0
    high = betaincinv(successes + 1, n - successes, 1 - alpha / 2) if successes < n else 1.0
    return float(low), float(high)


def is_share(result: Mapping[str, Any]) -> bool:
    """Return whether a score is a share, in [0, 1], that may be shown in percent.

    Args:
        result: `score`, `low`, `high` (each may be None) and, for a metric of a harness, `share`.
            Results of earlier versions do not say it; then the numbers decide.
    """
    numbers = [result[key] for key in ("score", "low", "high") if result[key] is not None]
    return bool(result.get("share", all(0 <= number <= 1 for number in numbers)))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of independent measurements without known bounds.

    With the mean m, the sample's standard deviation s and n values it is `m ± t_{n-1} · s / √n`.
    It is exact for a normal distribution and any n, and too short for a skewed one while n is
    small (for 13 exponential values the 95 % interval covers about 89 %, where a percentile
    bootstrap covers 85 %). For shares of correct answers and their differences use
    `bounded_mean.interval`, for counts of successes `interval`.

    Raises:
        InputError: fewer than two values, a value that is not finite, or a confidence outside
            (0, 1).
    """
    import numpy as np
    from scipy.stats import t

    _check_confidence(confidence)
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size < 2 or not np.isfinite(data).all():
        raise InputError(f"values: expected at least two finite numbers, got {list(values)!r}")
    mean = math.fsum(data) / data.size
    variance = math.fsum((data - mean) ** 2) / (data.size - 1)
    reach = float(t.ppf((1 + confidence) / 2, data.size - 1)) * math.sqrt(variance / data.size)
    return mean - reach, mean + reach


def paired_test(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> float:
    """Return the two-sided p-value of McNemar's exact test that two models score the same.

    Only the examples that one model solves and the other does not count. With b and c the numbers
    of either kind, under the null hypothesis b is Binomial(b + c, 1/2), so
    `p = min(1, 2 · Σ_{i ≤ min(b, c)} C(b+c, i) / 2^(b+c))`; 1 where b + c = 0.

    Args:
        correct_a: for each example, whether the first model solved it.
        correct_b: the same for the second model, on the same examples in the same order.

    Raises:
        InputError: the lengths differ or are zero.
    """
    if len(correct_a) != len(correct_b) or not correct_a:
        raise InputError(
            f"paired_test: expected two lists of one length, at least 1, "
            f"got {len(correct_a)} and {len(correct_b)}"
        )
    only_a = sum(bool(a) and not b for a, b in zip(correct_a, correct_b, strict=True))
    only_b = sum(bool(b) and not a for a, b in zip(correct_a, correct_b, strict=True))
    discordant = only_a + only_b
    tail: int = sum(math.comb(discordant, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / (1 << discordant))


def holm(p_values: Sequence[float], error: float = 0.05) -> list[bool]:
    """Return which hypotheses Holm's step-down procedure rejects.

    The hypotheses are tested in the order of their p-values, the i-th smallest of n at
    `error / (n - i + 1)`, until one is not rejected. The chance of any false rejection is at most
    `error`, however the tests depend on each other.

    Args:
        p_values: one for each hypothesis.
        error: the chance of at least one false rejection, in (0, 1).
    """
    _check_confidence(error)
    rejected = [False] * len(p_values)
    for tested, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > error / (len(p_values) - tested):
            break
        rejected[place] = True
    return rejected


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of the probability that at least one of k samples is correct.

    `1 - C(n-c, k) / C(n, k)` (Chen et al. 2021, equation 1), computed in integers.

    Args:
        n: the number of samples drawn.
        c: the number of correct samples.
        k: from 1 to n.

    Raises:
        InputError: an argument is out of range.
    """
    _check_count("n", n, 1)
    _check_count("c", c, 0, n)
    _check_count("k", k, 1, n)
    missed, all_ways = math.comb(n - c, k), math.comb(n, k)
    return (all_ways - missed) / all_ways


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number between 0 and 1, got {confidence!r}")


def _check_count(name: str, value: object, least: int, most: int | None = None) -> None:
    """Check that a value is an integer (NumPy's integers are accepted) within bounds."""
    whole = isinstance(value, SupportsIndex) and not isinstance(value, bool)
    number = operator.index(value) if isinstance(value, SupportsIndex) else 0
    if not whole or number < least or (most is not None and number > most):
        upper = "" if most is None else f" and at most {most}"
        raise InputError(f"{name}: expected a whole number, at least {least}{upper}, got {value!r}")
