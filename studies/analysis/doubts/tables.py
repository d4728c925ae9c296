"""The tables of the experiments that test doubts, and of the learning rates that were tried."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from lori_core.evaluation.statistics import mean_interval
from studies.analysis import cells
from studies.analysis.cells import Table, table
from studies.analysis.paired import crossed
from studies.analysis.rows import Estimate, Experiment, Level, Row

#: The levels of an adapter alone, and of the merge.
LEARNED_ALONE = {"merge": "single-task"}
MERGED = {"merge": "concat"}
LOSS = "loss"


def learning_rates(experiment: Experiment) -> Table:
    """Return a table of the candidates of each condition, with validation losses and the choice."""
    tried: dict[tuple[tuple[str, Level], ...], tuple[Row, Mapping[float, float]]] = {}
    for row in experiment.select("learning_rate"):
        if row.tried:
            levels = {k: v for k, v in row.factors.items() if v is not None}
            tried.setdefault((("task", row.task), *levels.items()), (row, row.tried))
    candidates = sorted({rate for _, losses in tried.values() for rate in losses})
    factors = [name for name in experiment.spec.factors if any(name in dict(k) for k in tried)]
    rows = []
    for key, (row, losses) in tried.items():
        own = dict(key)
        known = [cells.level(experiment.spec.factors[n], own.get(n)) for n in factors]
        texts = [f"{losses[r]:.4g}" if r in losses else cells.NOTHING for r in candidates]
        edge = " (at the edge)" if len(losses) > 1 and row.value in _ends(losses) else ""
        rows.append([row.task, *known, *texts, f"{row.value:g}{edge}"])
    columns = ["task", *(experiment.spec.factors[name].label for name in factors)]
    columns += [f"validation loss at {rate:g}" for rate in candidates]
    note = (
        "Tried with the first seed; the least validation loss decides. A better learning rate may "
        "lie outside where the chosen one is at the edge."
    )
    return table(
        "learning-rates", "Learning rates that were tried", [*columns, "chosen"], rows, note
    )


def _ends(losses: Mapping[float, float]) -> tuple[float, float]:
    return min(losses), max(losses)


def projections(experiment: Experiment) -> list[Table]:
    """Return tables of the excess loss of each task (eq. 3), and of the updates' cosines."""
    ways, rows, overlap = experiment.levels("projection"), [], []
    for way in ways:
        label = cells.level(experiment.spec.factors["projection"], way)
        for task in experiment.tasks():
            alone = experiment.estimate(LOSS, task, projection=way, **LEARNED_ALONE)
            merged = experiment.estimate(LOSS, task, projection=way, **MERGED)
            if alone is None or merged is None:
                continue
            texts = [cells.estimate(LOSS, e) for e in (alone, merged)]
            rows.append([label, task, *texts, cells.estimate(LOSS, excess(experiment, way, task))])
        cosines = ("mean_abs_cosine", "max_abs_cosine")
        found = [experiment.estimate(metric, projection=way) for metric in cosines]
        if any(found):
            pairs = zip(cosines, found, strict=True)
            overlap.append([label, *(cells.estimate(metric, e) for metric, e in pairs)])
    excesses = table(
        "excess",
        "Excess held-out loss of the merge (eq. 3), nats per example",
        ["A", "task", "alone, at its weight", "merged", "excess"],
        rows,
        "The excess is paired by seed and example.",
    )
    title = "Overlap of parameters: cosine between the updates of two tasks"
    return [excesses, table("overlap", title, ["A", "mean |cos|", "largest |cos|"], overlap)]


def excess(experiment: Experiment, way: str, task: str) -> Estimate | None:
    """Return the mean of merged less alone loss, in nats, with its 95 % interval.

    With the losses of the examples, the interval is that of `crossed.mean` over seeds and examples;
    otherwise it is Student's over the seeds.
    """
    sides = [
        {row.seed: row for row in experiment.select(LOSS, task, projection=way, **merge)}
        for merge in (MERGED, LEARNED_ALONE)
    ]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    pairs = [(sides[0][seed], sides[1][seed]) for seed in seeds]
    if not pairs:
        return None
    sets = {(row.item_set, len(row.items)) for pair in pairs for row in pair}
    if len(sets) == 1 and all(row.items for pair in pairs for row in pair):
        values: Any = np.array([np.subtract(m.items, a.items) for m, a in pairs])
        mean = crossed.mean([values])
        ends = mean.value - mean.reach, mean.value + mean.reach
        return Estimate(mean.value, *ends, len(seeds), int(values.size))
    differences = [(m.value or 0.0) - (a.value or 0.0) for m, a in pairs]
    low, high = mean_interval(differences) if len(differences) > 1 else (None, None)
    return Estimate(fmean(differences), low, high, len(seeds), 0)
