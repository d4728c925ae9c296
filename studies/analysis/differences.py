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

#: What rows to compare in: `metric`, `task` and factors.
Cell = Mapping[str, Wanted]
#: A coefficient, and the factors that it stands for.
Term = tuple[float, Mapping[str, Wanted]]
POINTS = "points"
LOSS = "loss"
RATIO = "ratio"


@dataclass(frozen=True)
class Difference:
    """How far conditions are apart; more than 0 is what the comparison asks about.

    Attributes:
        value: the mean over seeds.
        low: the lower end of its 95 % interval; None where nothing tells how sure it is.
        high: the upper end.
        seeds: how many it is over.
        unit: `points` of a share in percent; `loss` and `ratio`: 100 times the logarithm of how
            many times lower.
        tasks: it is the mean over.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    unit: str
    tasks: tuple[str, ...]


def score_cells(experiment: Experiment, tasks: Sequence[str] | None = None) -> list[Cell]:
    """Return a cell for each task's score."""
    found: dict[str, Cell] = {}
    for task, metric in experiment.measures(*SCORES):
        if tasks is None or task in tasks:
            found.setdefault(task, {"metric": metric, "task": task})
    return list(found.values())


def loss_cells(experiment: Experiment, tasks: Sequence[str] | None = None) -> list[Cell]:
    """Return a cell for each task's held-out loss."""
    there = experiment.measures("loss")
    return [{"metric": m, "task": t} for t, m in there if tasks is None or t in tasks]


def contrast(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term]
) -> Difference | None:
    """Return `Σ c_i · y_i` over the terms, the mean over cells, paired by seed.

    y is a share in points times 1 or -1, so that more is better; of a loss and of other numbers it
    is `-100 · ln`, so that the difference of two is about the percentage one is lower by. Cells
    that some term has no row for are left out, and so are seeds without all the others.

    The interval is the wider of two: Student's over the seeds' differences, and what the items
    alone allow (their intervals added in quadrature as if the conditions had been scored on
    different items, over the root of the number of seeds). The first knows that another seed may
    differ, the second keeps three seeds that happen to agree from proving too much. Of losses it
    is the first alone where there are several seeds: the losses of the same items rise and fall
    together, and how much items differ says next to nothing of a difference between conditions.
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
    """Return half the interval's width; None where neither seeds nor items tell."""
    found = []
    if len(values) > 1:
        low, high = mean_interval(values)
        found.append((high - low) / 2)
    if len(items) == len(values):
        found.append(math.sqrt(fmean(reach**2 for reach in items) / len(items)))
    return max(found, default=None)


def _rows(
    experiment: Experiment, cell: Cell, term: Mapping[str, Wanted]
) -> dict[int, tuple[float, float | None]]:
    """Return by seed the value, and half its interval over items, as `contrast` counts them."""
    wanted = {**cell, **term}
    metric = str(wanted.pop("metric"))
    task = wanted.pop("task", None)
    known = METRICS.get(metric)
    found: dict[int, list[tuple[float, float | None]]] = {}
    for row in experiment.select(metric, None if task is None else str(task), **wanted):
        value = row.value or 0.0
        reach = None if row.low is None or row.high is None else (row.high - row.low) / 2
        if known is not None and known.kind == "share":
            pair = (100 * value * (known.better or 1), None if reach is None else 100 * reach)
        elif value > 0:
            pair = (-100 * math.log(value), None if reach is None else 100 * reach / value)
        else:
            continue
        found.setdefault(row.seed, []).append(pair)
    return {seed: _mean(pairs) for seed, pairs in found.items()}


def _mean(pairs: Sequence[tuple[float, float | None]]) -> tuple[float, float | None]:
    known = [reach for _, reach in pairs if reach is not None]
    whole = math.hypot(*known) / len(pairs) if len(known) == len(pairs) else None
    return fmean(value for value, _ in pairs), whole


def _unit(cell: Cell) -> str:
    known = METRICS.get(str(cell["metric"]))
    if known is None or known.kind in ("plain", "count"):
        return RATIO
    return POINTS if known.kind == "share" else LOSS


def text(found: Difference | None) -> str:
    """Return `+3.2 points [+0.5, +5.9], 3 seeds`, or `loss -3.1 % [-5.2, -1.0], 3 seeds`."""
    if found is None:
        return "not measured"
    ends = [found.value, found.low, found.high]
    if found.unit != POINTS:
        # More is better, so the interval's upper end is the lowest loss.
        ends = [found.value, found.high, found.low]
        ends = [None if end is None else 100 * math.expm1(-end / 100) for end in ends]
    middle, low, high = (None if end is None else signed(end, 1) for end in ends)
    interval = "no interval" if low is None or high is None else f"[{low}, {high}]"
    seeds = f"{found.seeds} seed{'s' if found.seeds > 1 else ''}"
    named = {POINTS: f"{middle} points", LOSS: f"loss {middle} %"}
    return f"{named.get(found.unit, f'{middle} %')} {interval}, {seeds}"
