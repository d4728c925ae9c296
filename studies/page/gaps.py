"""The gaps of an experiment: levels that were not run, and missing numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from studies.analysis import cells, specs
from studies.analysis.rows import Experiment, Level

#: The most missing points that are listed; further ones are counted.
MOST = 6


def of(experiment: Experiment) -> list[str]:
    """Return a line for each level that was not run and each point of the sweep without a number.

    Each point should have a number for each seed and for each task and metric that any point has.
    """
    return [*_never_run(experiment), *_missing_points(experiment), *_nulls(experiment)]


def _never_run(experiment: Experiment) -> list[str]:
    lines = []
    for name, factor in experiment.spec.factors.items():
        levels = experiment.levels(name)
        absent = [factor.names[key] for key in factor.expected if key not in levels]
        if absent:
            lines.append(f"Not run: {factor.label} {', '.join(absent)}.")
    return lines


def _missing_points(experiment: Experiment) -> list[str]:
    missing: dict[str, list[str]] = {}
    needed = dict.fromkeys(
        (row.task, row.metric) for row in experiment.rows if row.metric in experiment.spec.required
    )
    measures = experiment.measures() or list(needed)
    for task, metric in measures:
        for where in _missing(experiment, task, metric):
            missing.setdefault(where, []).append(cells.heading(task, metric, unit=False))
    lines = [
        f"No number at {where}: "
        + ("all measures." if len(lacking) == len(measures) > 1 else f"{', '.join(lacking)}.")
        for where, lacking in missing.items()
    ]
    if len(lines) > MOST:
        lines = [*lines[:MOST], f"And at {len(lines) - MOST} more points."]
    return lines


def _missing(experiment: Experiment, task: str, metric: str) -> Iterator[str]:
    """Yield each point of the sweep that lacks numbers, with the missing seeds, as text."""
    sweep, seeds = experiment.spec.sweep, experiment.seeds()
    measured = {
        (*(row.factors[name] for name in sweep), row.seed)
        for row in experiment.rows
        if (row.task, row.metric) == (task, metric)
    }
    for point in product(*(_levels_for(experiment, name, task) for name in sweep)):
        lacking = [seed for seed in seeds if (*point, seed) not in measured]
        if lacking and _wanted(experiment, point):
            which = "" if len(lacking) == len(seeds) else f" (seed {', '.join(map(str, lacking))})"
            yield _place(experiment, dict(zip(sweep, point, strict=True))) + which


def _place(experiment: Experiment, point: Mapping[str, Level]) -> str:
    factors = experiment.spec.factors
    return ", ".join(
        f"{factors[name].label} {cells.level(factors[name], level) or 'none'}"
        for name, level in point.items()
    )


def _levels_for(experiment: Experiment, name: str, task: str) -> list[Level]:
    """Return the levels that a task should have; a learned task is scored only after itself."""
    levels: list[Level] = experiment.levels(name)
    if name == "learned" and task != "safety":
        return [level for level in levels if level == task]
    return levels


def _wanted(experiment: Experiment, point: tuple[Level, ...]) -> bool:
    """Return whether a point was planned; sweeps of merges and sources do not have all points."""
    sweep = experiment.spec.sweep
    if not {"merge", "source"} & set(sweep):
        return True
    return any(tuple(row.factors[name] for name in sweep) == point for row in experiment.rows)


def _nulls(experiment: Experiment) -> list[str]:
    count = sum(row.value is None for row in experiment.rows)
    plural = "measurement" if count == 1 else "measurements"
    return [f"{count} {plural} came out without a value."] if count else []


def known(experiment: Experiment) -> bool:
    """Return whether the rows have numbers for the experiment's figure."""
    needed = experiment.spec.required
    if needed:
        return any(row.metric in needed and row.value is not None for row in experiment.rows)
    measured = specs.MEASURES
    return any(row.metric in measured and row.value is not None for row in experiment.rows)
