"""Differences between an experiment's conditions, paired by seed and item, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from lori_core.evaluation.statistics import mean_interval
from lori_core.report.tables import signed
from studies.analysis.items import LIKELIHOOD
from studies.analysis.paired import crossed
from studies.analysis.rows import Experiment, Row, Wanted
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
        items: the number of items by which it is paired; 0 if it is paired by seed alone.
        freedom: the degrees of freedom of its interval.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    unit: str
    tasks: tuple[str, ...]
    items: int = 0
    freedom: float = math.inf

    def corrected(self, comparisons: int) -> tuple[float | None, float | None]:
        """Return the ends of the interval with Bonferroni's correction for several comparisons."""
        if self.low is None or self.high is None:
            return None, None
        wider = crossed.quantile(self.freedom, comparisons) / crossed.quantile(self.freedom)
        below, above = self.value - self.low, self.high - self.value
        return self.value - wider * below, self.value + wider * above

    def p_above(self, threshold: float) -> float:
        """Return the two-sided p-value of "the true difference is `threshold`", if it is above.

        It is below 0.05 exactly if the interval lies above the threshold; 1 without an interval.
        """
        return 1.0 if self.low is None else self._p(self.value - threshold, self.value - self.low)

    def p_below(self, threshold: float) -> float:
        """Return the two-sided p-value of "the true difference is `threshold`", if it is below."""
        return 1.0 if self.high is None else self._p(threshold - self.value, self.high - self.value)

    def _p(self, distance: float, reach: float) -> float:
        from scipy.stats import norm, t

        if reach <= 0:
            return float(distance <= 0)
        z = distance / reach * crossed.quantile(self.freedom)
        tail = norm.sf(z) if math.isinf(self.freedom) else t.sf(z, self.freedom)
        return min(1.0, 2 * float(tail))


def score_cells(experiment: Experiment, tasks: Sequence[str] | None = None) -> list[Cell]:
    """Return a cell for each task's score."""
    by_task: dict[str, Cell] = {}
    for task, metric in experiment.measures(*SCORES):
        if tasks is None or task in tasks:
            by_task.setdefault(task, {"metric": metric, "task": task})
    return list(by_task.values())


def likelihood_cells(experiment: Experiment, tasks: Sequence[str] | None = None) -> list[Cell]:
    """Return a cell for each multiple-choice task that was scored by log-likelihood."""
    return _cells(experiment, LIKELIHOOD, tasks)


def loss_cells(experiment: Experiment, tasks: Sequence[str] | None = None) -> list[Cell]:
    """Return a cell for each task's held-out loss."""
    return _cells(experiment, "loss", tasks)


def _cells(experiment: Experiment, metric: str, tasks: Sequence[str] | None) -> list[Cell]:
    measured = experiment.measures(metric)
    return [{"metric": m, "task": t} for t, m in measured if tasks is None or t in tasks]


def contrast(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term]
) -> Difference | None:
    """Return `Σ c_i · y_i` over the terms, averaged over the cells and paired by seed.

    For a share, y is its value in points times 1 or -1, so that more is better. For a loss and
    other numbers, y is `-100 · ln(value)`, so that a difference is about the percentage by which
    the first value is lower. Cells without rows for some term are left out, and so are seeds
    without rows for all terms and cells.

    If all rows have the outcomes of their items, the difference is paired by item as well: its
    interval is that of `crossed.mean`, over seeds and items together. For scores it is at least
    `crossed.bounded_reach`, so that items that all agree do not make a difference certain. Of a
    loss, an item's part in the logarithm of the mean is its part in the mean (first order).

    Otherwise the interval is the wider of two: Student's interval over the seeds' differences, and
    the interval from the items (the conditions' intervals added in quadrature, as if they had been
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
    used, seeds = _measured_by_all(experiment, cells, terms)
    if not seeds:
        return None
    tasks = dict.fromkeys(str(cell.get("task") or "") for cell in used)
    names, unit = tuple(task for task in tasks if task), _unit(used[0])
    tables = item_tables(experiment, used, terms, seeds)
    if tables is not None:
        return _by_items(tables, unit, len(seeds), names)
    values, reaches, _ = by_seed(experiment, used, terms)
    reach, freedom = _reach(values, reaches if unit != LOSS or len(values) == 1 else [])
    middle = fmean(values)
    low, high = (None, None) if reach is None else (middle - reach, middle + reach)
    return Difference(middle, low, high, len(seeds), unit, names, freedom=freedom)


def _measured_by_all(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term]
) -> tuple[list[Cell], list[int]]:
    """Return the cells that have rows for all terms, and the seeds that have all their rows."""
    used = [c for c in cells if all(_selected(experiment, c, term) for _, term in terms)]
    seeds = [set(_selected(experiment, cell, term)) for cell in used for _, term in terms]
    return used, sorted(set.intersection(*seeds)) if seeds else []


@dataclass(frozen=True)
class ItemTable:
    """A contrast's differences on one set of items.

    Attributes:
        values: the weighted differences [seeds, items]; over all sets their means add up.
        bound: the largest absolute value that a difference of shares can have, in points.
    """

    values: Any
    bound: float


def item_tables(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term], seeds: Sequence[int]
) -> list[ItemTable] | None:
    """Return the differences by seed and item; None if a row has no items.

    Args:
        experiment: the rows.
        cells: the cells to average over, each with rows for all terms.
        terms: as in `contrast`.
        seeds: the seeds that have all rows.
    """
    parts: dict[tuple[str, str, str], dict[int, list[tuple[float, Row]]]] = {}
    for cell in cells:
        for factor, term in terms:
            for seed, rows in _selected(experiment, cell, term).items():
                for row in rows:
                    if not row.items:
                        return None
                    key = (row.metric, row.task, row.item_set)
                    weighted = (factor / len(rows) / len(cells), row)
                    parts.setdefault(key, {}).setdefault(seed, []).append(weighted)
    tables = []
    for by_seed in parts.values():
        weights = {tuple(weight for weight, _ in by_seed.get(seed, [])) for seed in seeds}
        sizes = {len(row.items) for seed in seeds for _, row in by_seed.get(seed, [])}
        if len(weights) != 1 or len(sizes) != 1:  # the seeds were not scored on the same items
            return None
        values = [sum(w * _outcomes(row) for w, row in by_seed[seed]) for seed in seeds]
        (signed_weights,) = weights
        sides = [sum(max(0.0, sign * w) for w in signed_weights) for sign in (1, -1)]
        tables.append(ItemTable(np.array(values), 100 * max(sides)))
    return tables


def _outcomes(row: Row) -> Any:
    """Return y of `contrast` for each item [items]; the mean is y of the row."""
    values = np.array(row.items)
    if _is_share(row.metric):
        return 100 * (METRICS[row.metric].better or 1) * values
    return -100 * (math.log(values.mean()) + values / values.mean() - 1)


def _by_items(
    tables: Sequence[ItemTable], unit: str, seeds: int, tasks: tuple[str, ...]
) -> Difference:
    values = [table.values for table in tables]
    mean = crossed.mean(values)
    below = above = mean.reach
    if unit == POINTS:
        bounds = crossed.bounded_reach(values, [table.bound for table in tables])
        below, above = max(below, bounds[0]), max(above, bounds[1])
    count = sum(table.values.shape[1] for table in tables)
    low, high = mean.value - below, mean.value + above
    return Difference(mean.value, low, high, seeds, unit, tasks, count, mean.freedom)


def by_seed(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term]
) -> tuple[list[float], list[float], float]:
    """Return each seed's difference, half the width of its interval, and the mean items of a row.

    The widths are of unpaired items: the conditions' intervals added in quadrature. They are empty
    if a row has none.
    """
    used, seeds = _measured_by_all(experiment, cells, terms)
    rows = [(factor, _selected(experiment, cell, term)) for cell in used for factor, term in terms]
    values, reaches = [], []
    for seed in seeds:
        parts = [(f, *_mean([_measured(r) or (0.0, None) for r in own[seed]])) for f, own in rows]
        values.append(sum(factor * value for factor, value, _ in parts) / len(used))
        known = [(factor, reach) for factor, _, reach in parts if reach is not None]
        if len(known) == len(parts):
            reaches.append(math.hypot(*(f * reach for f, reach in known)) / len(used))
    counts = [row.n for _, own in rows for seed in seeds for row in own[seed]]
    return values, reaches, fmean(counts) if counts else 0.0


def tables_of(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term]
) -> list[ItemTable] | None:
    """Return `item_tables` of the cells and seeds that have all rows; None without any."""
    used, seeds = _measured_by_all(experiment, cells, terms)
    return item_tables(experiment, used, terms, seeds) if seeds else None


def _reach(values: Sequence[float], items: Sequence[float]) -> tuple[float | None, float]:
    """Return half the interval's width and its degrees of freedom.

    The width is None if neither seeds nor items give an interval.

    Args:
        values: the difference of each seed.
        items: half the width of the interval over items, for each seed.
    """
    widths = []
    if len(values) > 1:
        low, high = mean_interval(values)
        widths.append(((high - low) / 2, len(values) - 1.0))
    if len(items) == len(values):
        reach = math.sqrt(fmean(reach**2 for reach in items) / len(items))
        widths.append((reach, math.inf))
    return max(widths, default=(None, math.inf))


def _selected(
    experiment: Experiment, cell: Cell, term: Mapping[str, Wanted]
) -> dict[int, list[Row]]:
    """Return the rows of a cell and a term that have a y, by seed."""
    wanted = {**cell, **term}
    metric = str(wanted.pop("metric"))
    task = wanted.pop("task", None)
    by_seed: dict[int, list[Row]] = {}
    for row in experiment.select(metric, None if task is None else str(task), **wanted):
        if _measured(row) is not None:
            by_seed.setdefault(row.seed, []).append(row)
    return by_seed


def _measured(row: Row) -> tuple[float, float | None] | None:
    """Return y of a row with half the width of its interval; None for a loss of 0 or less."""
    value = row.value or 0.0
    reach = None if row.low is None or row.high is None else (row.high - row.low) / 2
    if _is_share(row.metric):
        better = METRICS[row.metric].better or 1
        return 100 * value * better, None if reach is None else 100 * reach
    if value <= 0:
        return None
    return -100 * math.log(value), None if reach is None else 100 * reach / value


def _is_share(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].kind == "share"


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

    For example `+3.2 points [+0.5, +5.9], 3 seeds, 400 items`, or `loss -3.1 % [-5.2, -1.0], 3
    seeds` where it is paired by seed alone.
    """
    if difference is None:
        return effect(None)
    counts = f"{difference.seeds} seed{'s' if difference.seeds > 1 else ''}"
    if difference.items:
        counts += f", {difference.items} items"
    return f"{effect(difference)}, {counts}"


def effect(difference: Difference | None) -> str:
    """Return a difference and its interval as text, e.g. `+3.2 points [+0.5, +5.9]`."""
    if difference is None:
        return "not measured"
    ends = [difference.value, difference.low, difference.high]
    if difference.unit != POINTS:
        # More is better, so the interval's upper end is the lowest loss.
        ends = [difference.value, difference.high, difference.low]
        ends = [None if end is None else 100 * math.expm1(-end / 100) for end in ends]
    middle, low, high = (None if end is None else signed(end, 1) for end in ends)
    interval = "no interval" if low is None or high is None else f"[{low}, {high}]"
    named = {POINTS: f"{middle} points", LOSS: f"loss {middle} %"}
    return f"{named.get(difference.unit, f'{middle} %')} {interval}"
