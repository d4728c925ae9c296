"""Differences between an experiment's conditions, paired by seed, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lori_core.evaluation.statistics import mean_interval
from lori_core.report.tables import signed
from studies.analysis.rows import Experiment, Wanted
from studies.analysis.specs import METRICS, SCORES

#: A condition that selects rows to compare: `metric`, `task` and levels of factors.
Cell = Mapping[str, Wanted]
#: A coefficient, and the factor levels of its rows.
Term = tuple[float, Mapping[str, Wanted]]
POINTS = "points"
LOSS = "loss"
RATIO = "ratio"


@dataclass(frozen=True)
class Difference:
    """The difference between conditions; above 0 if the first condition is better.

    Attributes:
        value: the mean over seeds.
        low: the lower end of its 95 % interval; None if the uncertainty is not known.
        high: the upper end.
        seeds: the number of seeds.
        unit: `points` for shares, in percent; for `loss` and `ratio`, 100 times the logarithm of
            the ratio second / first.
        tasks: the tasks it is the mean over.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    unit: str
    tasks: tuple[str, ...]


def score_cells(experiment: Experiment, tasks: Sequence[str] | None = None) -> list[Cell]:
    """Return a cell for each task's score."""
    by_task: dict[str, Cell] = {}
    for task, metric in experiment.measures(*SCORES):
        if tasks is None or task in tasks:
            by_task.setdefault(task, {"metric": metric, "task": task})
    return list(by_task.values())


def loss_cells(experiment: Experiment, tasks: Sequence[str] | None = None) -> list[Cell]:
    """Return a cell for each task's held-out loss."""
    losses = experiment.measures("loss")
    return [{"metric": m, "task": t} for t, m in losses if tasks is None or t in tasks]


def contrast(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term]
) -> Difference | None:
    """Return `Σ c_i · y_i` over the terms, averaged over the cells and paired by seed.

    For a share, y is its value in points times 1 or -1, so that more is better. For a loss and
    other numbers, y is `-100 · ln(value)`, so that a difference is about the percentage by which
    the first value is lower. Cells without rows for some term are left out, and so are seeds
    without rows for all terms and cells.

    The interval is the wider of two: Student's interval over the seeds' differences, and the
    interval from the items (the conditions' intervals added in quadrature, as if they had been
    scored on different items, divided by the root of the number of seeds). The first accounts for
    the variation between seeds; the second prevents a too narrow interval from a few seeds that
    agree by chance. For losses with several seeds only the first is used: the losses of the same
    items are correlated between conditions, so the variation between items says little about the
    difference.

    Args:
        experiment: the rows.
        cells: the cells to average over.
        terms: the coefficients c_i, with the factor levels of y_i.

    Returns:
        The difference; None if no cell and seed have rows for all terms.
    """
    used = [c for c in cells if all(_rows(experiment, c, term) for _, term in terms)]
    if not used:
        return None
    seeds = set.intersection(
        *(set(_rows(experiment, cell, term)) for cell in used for _, term in terms)
    )
    if not seeds:
        return None
    values, reaches = [], []
    for seed in sorted(seeds):
        parts = [
            (factor, *_rows(experiment, cell, term)[seed])
            for cell in used
            for factor, term in terms
        ]
        values.append(sum(factor * value for factor, value, _ in parts) / len(used))
        known = [(factor, reach) for factor, _, reach in parts if reach is not None]
        if len(known) == len(parts):
            reaches.append(math.hypot(*(f * reach for f, reach in known)) / len(used))
    unit = _unit(used[0])
    reach = _reach(values, reaches if unit != LOSS or len(values) == 1 else [])
    middle = fmean(values)
    low, high = (None, None) if reach is None else (middle - reach, middle + reach)
    tasks = dict.fromkeys(str(cell.get("task") or "") for cell in used)
    return Difference(middle, low, high, len(seeds), unit, tuple(t for t in tasks if t))


def _reach(values: Sequence[float], items: Sequence[float]) -> float | None:
    """Return half the interval's width; None if neither seeds nor items give an interval.

    Args:
        values: the difference of each seed.
        items: half the width of the interval over items, for each seed.
    """
    widths = []
    if len(values) > 1:
        low, high = mean_interval(values)
        widths.append((high - low) / 2)
    if len(items) == len(values):
        widths.append(math.sqrt(fmean(reach**2 for reach in items) / len(items)))
    return max(widths, default=None)


def _rows(
    experiment: Experiment, cell: Cell, term: Mapping[str, Wanted]
) -> dict[int, tuple[float, float | None]]:
    """Return y of `contrast` by seed, with half the width of its interval over items."""
    wanted = {**cell, **term}
    metric = str(wanted.pop("metric"))
    task = wanted.pop("task", None)
    known = METRICS.get(metric)
    by_seed: dict[int, list[tuple[float, float | None]]] = {}
    for row in experiment.select(metric, None if task is None else str(task), **wanted):
        value = row.value or 0.0
        reach = None if row.low is None or row.high is None else (row.high - row.low) / 2
        if known is not None and known.kind == "share":
            pair = (100 * value * (known.better or 1), None if reach is None else 100 * reach)
        elif value > 0:
            pair = (-100 * math.log(value), None if reach is None else 100 * reach / value)
        else:
            continue
        by_seed.setdefault(row.seed, []).append(pair)
    return {seed: _mean(pairs) for seed, pairs in by_seed.items()}


def _mean(pairs: Sequence[tuple[float, float | None]]) -> tuple[float, float | None]:
    known = [reach for _, reach in pairs if reach is not None]
    whole = math.hypot(*known) / len(pairs) if len(known) == len(pairs) else None
    return fmean(value for value, _ in pairs), whole


def _unit(cell: Cell) -> str:
    known = METRICS.get(str(cell["metric"]))
    if known is None or known.kind in ("plain", "count"):
        return RATIO
    return POINTS if known.kind == "share" else LOSS


def text(difference: Difference | None) -> str:
    """Return a difference as text.

    For example `+3.2 points [+0.5, +5.9], 3 seeds`, or `loss -3.1 % [-5.2, -1.0], 3 seeds`.
    """
    if difference is None:
        return "not measured"
    ends = [difference.value, difference.low, difference.high]
    if difference.unit != POINTS:
        # More is better, so the interval's upper end is the lowest loss.
        ends = [difference.value, difference.high, difference.low]
        ends = [None if end is None else 100 * math.expm1(-end / 100) for end in ends]
    middle, low, high = (None if end is None else signed(end, 1) for end in ends)
    interval = "no interval" if low is None or high is None else f"[{low}, {high}]"
    seeds = f"{difference.seeds} seed{'s' if difference.seeds > 1 else ''}"
    named = {POINTS: f"{middle} points", LOSS: f"loss {middle} %"}
    return f"{named.get(difference.unit, f'{middle} %')} {interval}, {seeds}"
