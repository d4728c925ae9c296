"""The panels of the experiments' figures: dots, lines, bars, heat maps, curves, fronts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from lori_core.report.figures import COLOURS, clean
from studies.analysis import cells
from studies.analysis.rows import Estimate, Experiment, Level
from studies.analysis.specs import METRICS
from studies.page.pareto import best_of

GREY, SKY, BLUE, ORANGE, VERMILLION, GREEN, PINK, _ = COLOURS
INK = "#222222"


@dataclass(frozen=True)
class Look:
    """The style of a condition, which tells conditions apart also without colour.

    It has a colour of Okabe and Ito's palette, and matplotlib's marker, hatch and dash.
    """

    colour: str
    marker: str = "o"
    hatch: str = ""
    dash: str = "-"

    def dotted(self) -> Look:
        """Return the same style with a dotted line, for a variant."""
        return replace(self, dash=":")

    def grey(self) -> Look:
        """Return the same marker with a grey dashed line, for a bound."""
        return replace(self, colour=GREY, dash="--")


LOOKS = {
    "base": Look(GREY, "s"),
    "full": Look(INK, "D"),
    "other": Look(SKY, "o"),
    "lora": Look(BLUE, "o", "", "--"),
    "lori-d": Look(ORANGE, "s", "//", "-."),
    "lori-s": Look(VERMILLION, "^", "..", "-"),
}


def look(method: str) -> Look:
    """Return a method's style; methods without their own share one."""
    return LOOKS.get(method, LOOKS["other"])


@dataclass(frozen=True)
class Entry:
    """A condition in a figure.

    Attributes:
        label: the label for people.
        look: its style.
        where: its factor levels.
    """

    label: str
    look: Look
    where: Mapping[str, Level]


def series(place: int) -> Look:
    """Return the style of the series with index `place`."""
    markers, dashes = "osD^vP", ("-", "--", "-.", ":")
    hatches = ("", "//", "..", "xx", "\\\\", "oo")
    colours = (BLUE, VERMILLION, GREEN, ORANGE, PINK, INK)
    return Look(colours[place % 6], markers[place % 6], hatches[place % 6], dashes[place % 4])


def scaled(metric: str, value: float) -> float:
    """Return a number in the unit of its axis: shares in percent."""
    return 100 * value if metric in METRICS and METRICS[metric].kind == "share" else value


def errors(metric: str, estimate: Estimate) -> list[list[float]] | None:
    """Return the distances of the interval's ends from the number, in the unit of its axis."""
    if estimate.low is None or estimate.high is None:
        return None
    ends = (estimate.value, estimate.low, estimate.high)
    middle, low, high = (scaled(metric, value) for value in ends)
    return [[max(0.0, middle - low)], [max(0.0, high - middle)]]


def dots(
    experiment: Experiment,
    entries: Sequence[Entry],
    measures: Sequence[tuple[str, str]],
    papers: Callable[[Entry, str], float | None],
) -> Any:
    """Draw a column for each measure with a row for each entry: ours above, the paper's below.

    Ours and the paper's numbers have their own axes: with different base models, only the order can
    be compared. `papers` returns the paper's number of an entry on a task, or None.
    """
    printed = {
        (entry.label, task): papers(entry, task) for entry in entries for task, _ in measures
    }
    below = [e for e in entries if any(printed[e.label, t] is not None for t, _ in measures)]
    heights = [1.0 + 0.26 * len(rows) for rows in (entries, below) if rows]
    size = (2.0 + 2.7 * len(measures), sum(heights) + 0.6)
    figure, axes = plt.subplots(
        len(heights), len(measures), figsize=size, squeeze=False, height_ratios=heights
    )
    for column, (task, metric) in enumerate(measures):
        for at, entry in enumerate(entries):
            estimate = experiment.estimate(metric, task, **entry.where)
            if estimate is not None:
                x, reach = scaled(metric, estimate.value), errors(metric, estimate)
                _dot(axes[0][column], x, at, reach, entry)
        _rows(axes[0][column], entries, first=column == 0)
        axes[0][column].set_title(cells.heading(task, metric), fontsize=10)
        for at, entry in enumerate(below):
            value = printed[entry.label, task]
            if value is not None:
                _dot(axes[1][column], value, at, None, entry)
        if below:
            _rows(axes[1][column], below, first=column == 0)
            axes[1][column].set_title(f"{task}: paper, Llama-3-8B", fontsize=10)
    return figure


def _dot(axis: Any, x: float, y: float, reach: list[list[float]] | None, entry: Entry) -> None:
    look = entry.look
    axis.errorbar(
        x, y, xerr=reach, fmt=look.marker, color=look.colour, mec=INK, mew=0.6, ms=6, capsize=2
    )


def _rows(axis: Any, entries: Sequence[Entry], *, first: bool) -> None:
    """Set up a panel of dots: a row for each entry, with labels in the first column only."""
    axis.set_yticks(range(len(entries)), [entry.label if first else "" for entry in entries])
    axis.set_ylim(len(entries) - 0.5, -0.5)
    axis.grid(axis="both", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    low, high = axis.dataLim.x0, axis.dataLim.x1
    if low <= high:
        room = 0.06 * (high - low) or 0.02 * abs(high) or 1.0
        axis.set_xlim(low - room, high + room)
    else:
        axis.text(0.5, 0.5, "no number", ha="center", va="center", transform=axis.transAxes)
        axis.set_xticks([])


def lines(
    experiment: Experiment, factor: str, labels: Sequence[str], entries: Sequence[Entry]
) -> Any:
    """Draw a panel for each measure, with a line for each entry over the levels of a factor.

    Levels have equal distances. A line is interrupted at a level that was not measured.
    """
    levels = experiment.levels(factor)
    figure, axes, measures = _measured(experiment)
    for axis, (task, metric) in zip(axes, measures, strict=True):
        for place, entry in enumerate(entries):
            estimates = [
                experiment.estimate(metric, task, **{**entry.where, factor: level})
                for level in levels
            ]
            shift = (place - (len(entries) - 1) / 2) * 0.06
            _line(axis, metric, estimates, [at + shift for at in range(len(levels))], entry)
        axis.set_xticks(range(len(levels)), labels)
        axis.set_xlabel(experiment.spec.factors[factor].label)
        axis.set_title(cells.heading(task, metric), fontsize=10)
        clean(figure, axis)
    return figure


def _line(
    axis: Any, metric: str, estimates: Sequence[Estimate | None], xs: Sequence[float], entry: Entry
) -> None:
    look = entry.look
    heights = [np.nan if e is None else scaled(metric, e.value) for e in estimates]
    axis.plot(
        xs, heights, look.dash, marker=look.marker, color=look.colour, mec=INK, mew=0.5, ms=5,
        label=entry.label,
    )  # fmt: skip
    for x, height, e in zip(xs, heights, estimates, strict=True):
        reach = None if e is None else errors(metric, e)
        if reach is not None:
            axis.errorbar(x, height, yerr=reach, fmt="none", ecolor=look.colour, capsize=2, lw=1)


def bars(experiment: Experiment, factor: str) -> Any:
    """Draw a panel for each measure, with a bar for each level of a factor; losses as points."""
    names = cells.levels(experiment, factor)
    figure, axes, measures = _measured(experiment)
    for axis, (task, metric) in zip(axes, measures, strict=True):
        for at, (level, _) in enumerate(names):
            estimate = experiment.estimate(metric, task, **{factor: level})
            if metric == "loss":
                _point(axis, at, estimate, series(at))
            else:
                bar(axis, at, estimate, 0.7, series(at))
        axis.set_xticks(range(len(names)), [name for _, name in names])
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.tick_params(axis="x", rotation=30 if len(names) > 3 else 0)
        axis.set_title(cells.heading(task, metric), fontsize=10)
        clean(figure, axis)
    return figure


def _point(axis: Any, x: float, estimate: Estimate | None, look: Look) -> None:
    """Draw a loss as a point with its interval; the axis of a bar would have to start at 0."""
    if estimate is not None:
        style = {"color": look.colour, "mec": INK, "mew": 0.6, "ms": 7, "capsize": 3}
        axis.errorbar(x, estimate.value, yerr=errors("loss", estimate), fmt=look.marker, **style)


def bar(
    axis: Any, x: float, estimate: Estimate | None, width: float, look: Look, label: str = ""
) -> None:
    """Draw a share as a bar with its interval, or a cross if there is no number."""
    if estimate is None:
        axis.plot(x, 0, "x", color=INK, ms=6, clip_on=False)
        return
    axis.bar(
        x,
        100 * estimate.value,
        width,
        yerr=errors("accuracy", estimate),
        label=label or None,
        color=look.colour,
        hatch=look.hatch,
        edgecolor="white",
        error_kw={"elinewidth": 1, "capsize": 2, "ecolor": INK},
    )


def _measured(experiment: Experiment) -> tuple[Any, list[Any], list[tuple[str, str]]]:
    """Return a figure with a panel for each measure: scores above, losses below."""
    measures = experiment.measures()
    rows = [
        [pair for pair in measures if pair[1] != "loss"],
        [pair for pair in measures if pair[1] == "loss"],
    ]
    rows = [row for row in rows if row]
    columns = max(len(row) for row in rows)
    size = (max(4.5, 3.0 * columns), 2.9 * len(rows))
    figure, grid = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    used = [axis for row, line in zip(rows, grid, strict=True) for axis in line[: len(row)]]
    for axis in grid.flat:
        axis.set_visible(axis in used)
    return figure, used, [pair for row in rows for pair in row]


def heat(axis: Any, matrix: Any, metric: str) -> None:
    """Draw a matrix with its numbers, brighter for better, with each row's best framed."""
    better = METRICS[metric].better or 1
    known = matrix[~np.isnan(matrix)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    low, high = (low - 1, high + 1) if low == high else (low, high)
    axis.imshow(
        matrix, cmap="cividis" if better > 0 else "cividis_r", vmin=low, vmax=high, aspect="auto"
    )
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            axis.text(column, row, cells.NOTHING, ha="center", va="center")
            continue
        bright = (value > (low + high) / 2) == (better > 0)
        axis.text(
            column, row, cells.number(metric, value), ha="center", va="center",
            color="black" if bright else "white",
        )  # fmt: skip
    for row, line in enumerate(matrix):
        if not np.isnan(line).all():
            best = int(np.nanargmax(better * line))
            for colour, width in (("white", 4), ("black", 2)):
                corner = (best - 0.46, row - 0.46)
                axis.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, ec=colour, lw=width))


def curve(
    axis: Any,
    experiment: Experiment,
    metric: str,
    where: Mapping[str, Level],
    look: Look,
    label: str,
) -> None:
    """Draw a measure over d_in as a line."""
    estimates = [
        (w, experiment.estimate(metric, None, **where, d_in=w)) for w in experiment.levels("d_in")
    ]
    measured = [(w, e) for w, e in estimates if e is not None]
    if not measured:
        return
    main = metric != "bound"
    axis.plot(
        [w for w, _ in measured], [e.value for _, e in measured], look.dash, label=label,
        marker=look.marker, color=look.colour, ms=5 if main else 3, mec=INK, mew=0.5,
        lw=1.5 if main else 1,
    )  # fmt: skip


def front(axis: Any, points: Sequence[tuple[float, float, str]], more_x: int, more_y: int) -> None:
    """Draw labelled points and a line through the Pareto front.

    Args:
        axis: the axes to draw on.
        points: x, y and label of each point.
        more_x: 1 if a larger x is better, -1 if a smaller one is.
        more_y: the same for y.
    """
    best = best_of([(x, y) for x, y, _ in points], more_x, more_y)
    axis.margins(x=0.1)
    axis.plot([x for x, _ in best], [y for _, y in best], "-", color=VERMILLION, lw=1.2, zorder=1)
    for x, y, label in points:
        on = (x, y) in best
        axis.plot(x, y, "^" if on else "o", color=VERMILLION if on else SKY, mec=INK, mew=0.5, ms=7)
        axis.annotate(label, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)


def finish(figure: Any, title: str, *, legend: bool = False) -> Any:
    """Add a title above a figure and, with `legend`, one legend of all labels below it."""
    figure.suptitle(title)
    bottom = 0.0
    if legend:
        by_label: dict[str, Any] = {}
        for axis in figure.axes:
            handles, labels = axis.get_legend_handles_labels()
            by_label |= dict(zip(labels, handles, strict=True))
        if by_label:
            figure.legend(
                list(by_label.values()), list(by_label), loc="lower center", ncols=6,
                frameon=False, fontsize=8,
            )  # fmt: skip
        bottom = 0.3 / figure.get_figheight()
    figure.tight_layout(rect=(0, bottom, 1, 1))
    return figure
