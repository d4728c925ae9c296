"""The figure of `safety-baselines`: refusals over the task's score, with intervals and front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt

from lori_core.report.figures import clean
from studies.analysis import cells
from studies.analysis.rows import Estimate, Experiment
from studies.analysis.specs import KEEPING, METHODS, METRICS
from studies.page import panels, pareto

#: The lowest and the highest refusal rate on the axis, and the least distance of two labels as a
#: share of the axis.
LOW, HIGH, GAP = -4, 104, 0.032
#: A point's x, y, text and colour.
Label = tuple[float, float, str, str]


def safety_baselines(experiment: Experiment) -> Any:
    """Draw a panel for each learned task; a point for each method and way, with its intervals."""
    main = dict(experiment.main_measures())
    refusals = main.pop("safety", "refusal_rate")
    learned = [task for task in experiment.levels("learned") if task in main]
    count = max(1, len(learned))
    figure, axes = plt.subplots(1, count, figsize=(7.4 * count, 5.4), squeeze=False, sharey=True)
    for axis, task in zip(axes[0], learned, strict=False):
        labels = _panel(axis, experiment, task, main[task], refusals)
        axis.set_ylim(LOW, HIGH)
        axis.set_xlabel(cells.heading(task, main[task]))
        clean(figure, axis)
        _write(axis, labels)
    axes[0][0].set_ylabel(cells.heading("safety", refusals))
    title = "Task gain against refusals kept, 95 % intervals"
    return panels.finish(figure, title, legend=True)


def _panel(axis: Any, experiment: Experiment, task: str, metric: str, refusals: str) -> list[Label]:
    """Draw the points and their front; return the points' labels."""
    labels: list[Label] = []
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
            labels.append((*place, KEEPING.get(str(keeping), str(keeping)), look.colour))
            named = True
    best = pareto.best_of(
        [(x, y) for x, y, _, _ in labels], METRICS[metric].better, METRICS[refusals].better
    )
    axis.plot([x for x, _ in best], [y for _, y in best], "-", color=panels.INK, lw=1, zorder=1)
    axis.margins(x=0.1)
    return labels


def _write(axis: Any, labels: Sequence[Label]) -> None:
    """Write the labels in a column right of the panel, each with a thin line to its point."""
    ordered = sorted(labels, key=lambda label: (label[1], -label[0]))
    heights = spread([(y - LOW) / (HIGH - LOW) for _, y, _, _ in ordered], GAP)
    for (x, y, text, colour), height in zip(ordered, heights, strict=True):
        axis.annotate(
            text, (x, y), xytext=(1.03, height), textcoords="axes fraction", fontsize=7,
            va="center", color=colour, arrowprops={"arrowstyle": "-", "lw": 0.3, "color": colour},
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return heights at least `gap` apart, as near as may be to the given ones and at most 1.

    Args:
        heights: the wanted heights from 0 to 1, in ascending order.
        gap: the least distance between two heights.
    """
    result: list[float] = []
    for height in heights:
        result.append(max(height, result[-1] + gap) if result else height)
    limit = 1.0
    for number in reversed(range(len(result))):
        result[number] = min(result[number], limit)
        limit = result[number] - gap
    return result


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
