"""Confidence limits for the mean of bounded outcomes, without an assumption on their distribution.

Outcomes are correct or wrong (0, 1), shares of correct answers (0 to 1), or differences of these
between two models on the same items (-1 to 1). If all outcomes are equal, a bootstrap or a standard
error gives an interval of width 0; these limits do not.

With x_1 … x_n the outcomes, a the least possible value and (w_0, …, w_n) uniform on the simplex
(Dirichlet(1, …, 1)), the one-sided p-value of "the mean is at most m" is

    p(m) = P(w_0·a + Σ_i w_i·x_i <= m)

and the lower limit of confidence 1 - α is the m with p(m) = α: a Bayesian bootstrap with one
additional item of the least value (Gaffke 2005; Learned-Miller and Thomas 2019, arXiv:1905.06208).
Upper limits are the mirror image. If the outcomes are the two ends of the range, these are the
exact limits of Clopper and Pearson. For -1, 0 and 1 a lower limit below 0 is that of Fay and
Lumbard (2021, doi:10.1002/sim.8829), and p(0) is McNemar's exact one-sided p-value: the interval
excludes 0 exactly if McNemar's test rejects. For other outcomes there is no proof that the error
is at most α, and no known counterexample; the enumeration in
tests/evaluation/test_gate_confidence.py confirms the bound for -1, 0 and 1. p decreases in every
outcome and increases in m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lori_core.core.errors import InputError

#: The end of the integration range (before sinh), where the integrand is negligible.
_END = 12.0
#: Terms whose logarithm is smaller than the largest by more than this are negligible.
_NOTHING = 40.0
#: The largest number of distinct values; more are rounded.
_LEVELS = 1000


def p_value(values: Sequence[float], mean: float, least: float) -> float:
    """Return the one-sided p-value of "the true mean is at most `mean`".

    Args:
        values: independent outcomes, none below `least`; at least one.
        mean: the mean to test.
        least: the least value that an outcome can have.

    Raises:
        InputError: no values, or one that is not finite or below `least`.
    """
    return _p_value(*_counted(values, least, math.inf), mean, least)


def interval(
    values: Sequence[float], least: float, most: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the two-sided interval of the true mean; each side has half of the error.

    Args:
        values: independent outcomes from `least` to `most`; at least one.
        least: the least value that an outcome can have.
        most: the largest value that an outcome can have.
        confidence: of both sides together, in (0, 1); 2c - 1 for one-sided limits of confidence c.

    Raises:
        InputError: no values, a value that is not finite or out of range, or a confidence outside
            (0, 1).
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    distinct, counts = _counted(values, least, most)
    level = (1 - confidence) / 2
    low = _lower_limit(distinct, counts, least, level)
    return low, -_lower_limit(-distinct, counts, -most, level)


def items_needed(margin: float, confidence: float) -> int | None:
    """Return the number of items with a difference of 0 that a non-inferiority test needs to pass.

    The p-value of n differences of 0 is `(1 - margin)^n`; the result is the least n for which this
    is at most `1 - confidence`. It is None for a margin of 0, with which no n passes.
    """
    if margin <= 0:
        return None
    level = 1 - confidence
    about = max(1, math.floor(math.log(level) / math.log1p(-margin)) - 1)
    # If the margin is too small for the power in float64, use the estimate, exact to one item.
    near = range(about, about + 4)
    return next((n for n in near if (1 - margin) ** n <= level), near[-1])


def _counted(values: Sequence[float], least: float, most: float) -> tuple[Any, Any]:
    """Return the distinct values and their counts, after checking the range."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not data.size or not np.isfinite(data).all():
        raise InputError("values: expected at least one number, all of them finite")
    if data.min() < least or data.max() > most:
        raise InputError(
            f"values: expected numbers from {least:g} to {most:g}, "
            f"got {data.min():g} to {data.max():g}"
        )
    return np.unique(data, return_counts=True)


def _rounded(values: Any, counts: Any, least: float) -> tuple[Any, Any]:
    """Return the values; round very many distinct ones down, which is safe for a lower limit."""
    if len(values) <= _LEVELS:
        return values, counts
    size = (values.max() - least) / _LEVELS
    levels, places = np.unique(np.floor((values - least) / size), return_inverse=True)
    return least + levels * size, np.bincount(places, weights=counts)


def _lower_limit(values: Any, counts: Any, least: float, level: float) -> float:
    """Return the mean whose p-value is `level`."""
    from scipy.optimize import brentq
    from scipy.special import ndtri

    values, counts = _rounded(values, counts, least)
    most = float(values.max())
    if most <= least:
        return float(least)

    def gap(mean: float) -> float:
        """Return the distance of the p-value from `level` in normal quantiles, nearly linear."""
        p = _p_value(values, counts, mean, least)
        return float(ndtri(min(max(p, 1e-300), 1 - 1e-16)) - ndtri(level))

    n = counts.sum()
    centre = (counts @ values + least) / (n + 1)
    spread = math.sqrt(
        (counts @ (values - centre) ** 2 + (least - centre) ** 2) / (n + 1) / (n + 2)
    )
    low, high = (float(centre + spread * (ndtri(level) + side)) for side in (-1, 1))
    low = low if low > least and gap(low) < 0 else least
    high = high if high < most and gap(high) > 0 else most
    return float(brentq(gap, low, high, xtol=1e-13))


def _p_value(values: Any, counts: Any, mean: float, least: float) -> float:
    """Return p(mean) as P(Σ g_i·(x_i - mean) <= 0): w_i is g_i / Σ g, g_i ~ Exponential(1)."""
    return _below_zero(np.append(values, least) - mean, np.append(counts, 1.0))


def _below_zero(values: Any, shapes: Any) -> float:
    """Return P(Y <= 0) of Y = Σ g_j·y_j with g_j ~ Gamma(a_j), to about 1e-12.

    By the inversion formula `P(Y < 0) = -1/(2πi) ∫ E[exp(zY)]/z dz` along a line Re z = z_0 < 0,
    with `E[exp(zY)] = Π_j (1 - z·y_j)^(-a_j)`. The line is where the integrand is least on the real
    axis (the saddle point); from there its modulus falls on both sides.

    Args:
        values: y_j.
        shapes: a_j, all positive.
    """
    if not (values > 0).any():
        return 1.0
    if not (values < 0).any():
        return 0.0
    if shapes @ values < 0:  # compute the smaller tail
        return 1 - _below_zero(-values, shapes)
    middle = _saddle(values, shapes)
    tilted = values / (1 - middle * values)
    width = 1 / math.sqrt(shapes @ tilted**2 + middle**-2)

    def along(places: Any) -> Any:
        """Return the logarithm of the integrand times dz, at z_0 + i·width·sinh(place)."""
        line = middle + 1j * width * np.sinh(places)
        log_moments = -np.log(1 - np.multiply.outer(line, values)) @ shapes
        return log_moments - np.log(line / (width * np.cosh(places)))

    coarse = np.arange(0, _END, 0.25)
    heights = along(coarse).real
    gone = coarse[heights < heights[0] - _NOTHING]
    # The integrand oscillates faster with more terms, about with the root of their number.
    step = min(0.1, 1 / math.sqrt(shapes.sum()))
    heights = np.exp(along(np.arange(0, gone.min(initial=_END), step))).real
    return float(-step * (heights.sum() - heights[0] / 2) / math.pi)


def _saddle(values: Any, shapes: Any) -> float:
    """Return the z < 0 that minimises `Π_j (1 - z·y_j)^(-a_j) / -z`."""
    from scipy.optimize import brentq

    def slope(z: float) -> float:
        return float(shapes @ (values / (1 - z * values)) - 1 / z)

    end = 1 / float(values.min())  # no moment there
    low, high = end * (1 - 1e-3), end / 2
    while slope(low) > 0:
        low = end + (low - end) / 16
    while slope(high) < 0:
        high /= 16
    return float(brentq(slope, low, high, xtol=1e-300, rtol=1e-6))
