"""The figure of `safety-baselines`: refusals over the task's score, with intervals and front."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from lori_core.report.figures import clean
from studies.analysis import cells
from studies.analysis.rows import Estimate, Experiment
from studies.analysis.specs import KEEPING, METHODS, METRICS
from studies.page import panels, pareto


def safety_baselines(experiment: Experiment) -> Any:
    """Draw a panel for each learned task; a point for each method and way, with its intervals."""
    main = dict(experiment.main_measures())
    refusals = main.pop("safety", "refusal_rate")
    learned = [task for task in experiment.levels("learned") if task in main]
    count = max(1, len(learned))
    figure, axes = plt.subplots(1, count, figsize=(6.4 * count, 5.4), squeeze=False, sharey=True)
    for axis, task in zip(axes[0], learned, strict=False):
        _panel(axis, experiment, task, main[task], refusals)
        axis.set_xlabel(cells.heading(task, main[task]))
        clean(figure, axis)
    axes[0][0].set_ylabel(cells.heading("safety", refusals))
    title = "Task gain against refusals kept, 95 % intervals"
    return panels.finish(figure, title, legend=True)


def _panel(axis: Any, experiment: Experiment, task: str, metric: str, refusals: str) -> None:
    points: list[tuple[float, float]] = []
    for method in experiment.levels("method"):
        look, named = panels.look(method), False
        for keeping in experiment.levels("keeping"):
            where = {"method": method, "keeping": keeping, "learned": task}
            x = experiment.estimate(metric, task, **where)
            y = experiment.estimate(refusals, "safety", **where)
            if x is None or y is None:
                continue
            place = panels.scaled(metric, x.value), panels.scaled(refusals, y.value)
            label = "" if named else METHODS[method]
            _point(axis, place, (x, y), (metric, refusals), look, label)
            axis.annotate(
                KEEPING.get(str(keeping), str(keeping)), place, xytext=(4, 4),
                textcoords="offset points", fontsize=7, color=look.colour,
            )  # fmt: skip
            points.append(place)
            named = True
    best = pareto.best_of(points, METRICS[metric].better, METRICS[refusals].better)
    axis.plot([x for x, _ in best], [y for _, y in best], "-", color=panels.INK, lw=1, zorder=1)
    axis.margins(x=0.1)


def _point(
    axis: Any,
    place: tuple[float, float],
    estimates: tuple[Estimate, Estimate],
    metrics: tuple[str, str],
    look: panels.Look,
    label: str,
) -> None:
    """Draw a point with its intervals on both axes."""
    reaches = [panels.errors(m, e) for m, e in zip(metrics, estimates, strict=True)]
    axis.errorbar(
        *place, xerr=reaches[0], yerr=reaches[1], fmt=look.marker, color=look.colour,
        mec=panels.INK, mew=0.6, ms=6, elinewidth=0.5, alpha=0.9, label=label or None,
    )  # fmt: skip
