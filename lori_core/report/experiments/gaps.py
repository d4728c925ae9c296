"""What an experiment has no number for, said in words."""

from __future__ import annotations

from itertools import product

from lori_core.report.experiments import catalogue, cells
from lori_core.report.experiments.rows import Experiment, Level

#: More lines than this are counted, not listed.
MOST = 6


def of(experiment: Experiment) -> list[str]:
    """Return a line for each level never run and each point of the sweep without a number.

    A point is wanted for each task and metric that any point has, and for each seed.
    """
    return [*_never_run(experiment), *_missing_points(experiment), *_nulls(experiment)]


def _never_run(experiment: Experiment) -> list[str]:
    lines = []
    for name, factor in experiment.spec.factors.items():
        there = experiment.levels(name)
        absent = [factor.names[key] for key in factor.names if key not in there]
        if factor.expected and absent:
            lines.append(f"Not run: {factor.label} {', '.join(absent)}.")
    return lines


def _missing_points(experiment: Experiment) -> list[str]:
    sweep = experiment.spec.sweep
    seeds = experiment.seeds()
    lines: dict[str, None] = {}
    for task, metric in experiment.measures():
        there = {
            (*(row.factors[name] for name in sweep), row.seed)
            for row in experiment.rows
            if (row.task, row.metric) == (task, metric)
        }
        for point in product(*(_levels_for(experiment, name, task) for name in sweep)):
            missing = [seed for seed in seeds if (*point, seed) not in there]
            if not missing or not _wanted(experiment, point, task):
                continue
            where = ", ".join(
                f"{experiment.spec.factors[name].label} "
                f"{cells.level(experiment.spec.factors[name], level) or 'none'}"
                for name, level in zip(sweep, point, strict=True)
            )
            which = "" if len(missing) == len(seeds) else f" (seed {_listed(missing)})"
            lines[f"No number for {cells.heading(task, metric, unit=False)} at {where}{which}."] = (
                None
            )
    listed = list(lines)
    if len(listed) > MOST:
        listed = [*listed[:MOST], f"And {len(listed) - MOST} more points without a number."]
    return listed


def _levels_for(experiment: Experiment, name: str, task: str) -> list[Level]:
    """Return the levels that a task should have: a learned task is measured after itself alone."""
    found: list[Level] = experiment.levels(name)
    if name == "learned" and task != "safety":
        return [level for level in found if level == task]
    return found


def _wanted(experiment: Experiment, point: tuple[Level, ...], task: str) -> bool:
    """Whether a point of the sweep was meant to be: not every method is merged in every way."""
    if "merge" not in experiment.spec.sweep:
        return True
    sweep = experiment.spec.sweep
    pairs = {tuple(row.factors[name] for name in sweep) for row in experiment.rows}
    return point in pairs


def _nulls(experiment: Experiment) -> list[str]:
    count = sum(row.value is None for row in experiment.rows)
    return [f"{count} measurements came out without a value."] if count else []


def _listed(seeds: list[int]) -> str:
    return ", ".join(str(seed) for seed in seeds)


def known(experiment: Experiment) -> bool:
    """Whether the rows have what the experiment's figure is made of."""
    needed = experiment.spec.required
    if needed:
        return any(row.metric in needed and row.value is not None for row in experiment.rows)
    measured = catalogue.MEASURES
    return any(row.metric in measured and row.value is not None for row in experiment.rows)
