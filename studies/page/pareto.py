"""Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence


def best_of(
    points: Sequence[tuple[float, float]], more_x: int, more_y: int
) -> list[tuple[float, float]]:
    """Return the points that no other one beats on both axes, sorted.

    Args:
        points: x and y of each point.
        more_x: 1 if a larger x is better, -1 if a smaller one is.
        more_y: the same for y.
    """
    return sorted(
        (x, y)
        for x, y in points
        if not any(
            more_x * a >= more_x * x and more_y * b >= more_y * y and (a, b) != (x, y)
            for a, b in points
        )
    )
