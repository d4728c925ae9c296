"""The figures of the experiments, in the form of the paper's figures.

They are readable without colour: methods also differ by marker, bars by hatch, lines by dash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from lori_core.report.figures import clean, save, style
from studies.analysis import cells, paper
from studies.analysis.mask_claims import map_sparsity, map_tasks
from studies.analysis.rows import Experiment
from studies.analysis.specs import ATTENTION, FEED_FORWARD, MERGES, METHODS, METRICS, SCORES
from studies.analysis.tables import learned_levels, merge_points
from studies.page import doubt_figures, panels, safety_figure

Figure = Any
MEAN = "mean_abs_cosine"


def single_task(experiment: Experiment) -> Figure:
    """Draw each method's score on each task, beside the paper's."""

    def papers(entry: panels.Entry, task: str) -> float | None:
        return paper.single_task(str(entry.where["method"]), task)

    entries = _methods(experiment)
    figure = panels.dots(experiment, entries, experiment.main_measures(), papers)
    return panels.finish(figure, "Single task: score on each task's test set, 95 % intervals")


def _methods(experiment: Experiment) -> list[panels.Entry]:
    return [
        panels.Entry(METHODS[method], panels.look(method), {"method": method})
        for method in experiment.levels("method")
    ]


def merges(count: int) -> Callable[[Experiment], Figure]:
    """Return the function that draws merges of `count` adapters beside the paper's."""

    def draw(experiment: Experiment) -> Figure:
        def papers(entry: panels.Entry, task: str) -> float | None:
            where = entry.where
            return paper.merged(count, str(where["merge"]), str(where["method"]), task)

        entries = _merges(experiment)
        figure = panels.dots(experiment, entries, experiment.main_measures(), papers)
        number = {3: "three", 4: "four"}[count]
        title = f"Merging {number} adapters: score on each task, 95 % intervals"
        return panels.finish(figure, title)

    return draw


def _merges(experiment: Experiment) -> list[panels.Entry]:
    points = merge_points(experiment)
    names = [f"{MERGES[str(p['merge'])]} {METHODS[str(p['method'])]}" for p in points]
    return [
        panels.Entry(
            name if names.count(name) == 1 else f"{name}, {point['weight']:g}",
            panels.look(str(point["method"])),
            point,
        )
        for name, point in zip(names, points, strict=True)
    ]


def losses(experiment: Experiment) -> Figure:
    """Draw the held-out loss of each method or merge on each task."""
    merged = "merge" in experiment.spec.factors
    entries = _merges(experiment) if merged else _methods(experiment)
    figure = panels.dots(experiment, entries, experiment.measures("loss"), lambda *_: None)
    return panels.finish(figure, "Held-out loss, nats per example (less is better), 95 % intervals")


def continual(experiment: Experiment) -> Figure:
    """Draw safety, over-refusal and the learned task's score, grouped by the learned task."""
    learned = learned_levels(experiment)
    measures = experiment.measures()
    safety = [m for t, m in measures if t == "safety" and m != "loss"]
    figure, axes = plt.subplots(
        1, len(safety) + 1, figsize=(4.1 * (len(safety) + 1), 3.6), squeeze=False
    )
    methods = experiment.levels("method")
    for axis, metric in zip(axes[0], safety, strict=False):
        groups = [(name or "safety\nalone", "safety", metric, name) for name in learned]
        _learned_bars(axis, experiment, groups, methods)
        axis.set_title(f"Safety: {METRICS[metric].label}", fontsize=10)
    own = {t: m for t, m in reversed(measures) if m in SCORES and t != "safety"}
    groups = [(name, name, own[name], name) for name in learned if name in own]
    _learned_bars(axes[0][-1], experiment, groups, methods)
    axes[0][-1].set_title("Score on the learned task", fontsize=10)
    for axis in axes[0]:
        axis.set_xlabel("learned after safety")
    return panels.finish(
        figure, "A safety adapter learns a task: what is left of safety", legend=True
    )


def _learned_bars(
    axis: Any,
    experiment: Experiment,
    groups: Sequence[tuple[str, str, str, str]],
    methods: Sequence[str],
) -> None:
    """Draw groups of (label, task, metric, learned), a bar for each method."""
    width = 0.84 / len(methods)
    for place, method in enumerate(methods):
        look = panels.look(method)
        for at, (_, task, metric, learned) in enumerate(groups):
            estimate = experiment.estimate(metric, task, method=method, learned=learned)
            x = at - 0.42 + (place + 0.5) * width
            panels.bar(axis, x, estimate, 0.9 * width, look, METHODS[method] if at == 0 else "")
    axis.set_xticks(range(len(groups)), [label for label, *_ in groups])
    axis.set_ylabel("%")
    axis.set_ylim(0, 105)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)


def calibration_steps(experiment: Experiment) -> Figure:
    """Draw scores and losses over the number of calibration steps (Figure 4a)."""
    steps = experiment.levels("calibration_steps")
    labels = ["random\nmask" if step == 0 else f"{step:g}" for step in steps]
    entry = panels.Entry("LoRI-S", panels.look("lori-s"), {})
    figure = panels.lines(experiment, "calibration_steps", labels, [entry])
    return panels.finish(figure, "LoRI-S by the steps its mask was calibrated for")


def merge_weights(experiment: Experiment) -> Figure:
    """Draw scores and losses over the merging weight (Figures 4d, 7)."""
    ways = experiment.levels("merge") or [None]
    methods = experiment.levels("method")
    entries = []
    for method, (place, way) in product(methods, enumerate(ways)):
        look = panels.look(method)
        name = METHODS[method] + (f", {MERGES[way]}" if way and len(ways) > 1 else "")
        where = {"method": method} | ({"merge": way} if way else {})
        # Linear merges of the same adapters are dotted.
        entries.append(panels.Entry(name, look if place == 0 else look.dotted(), where))
    labels = [f"{weight:g}" for weight in experiment.levels("weight")]
    figure = panels.lines(experiment, "weight", labels, entries)
    return panels.finish(figure, "Score of the merge by its uniform weight", legend=True)


def levels(factor: str, title: str) -> Callable[[Experiment], Figure]:
    """Return the function that draws a panel for each measure with a bar for each level."""

    def draw(experiment: Experiment) -> Figure:
        return panels.finish(panels.bars(experiment, factor), title)

    return draw


def sparsity_map(experiment: Experiment) -> Figure:
    """Draw the share of B in the mask by layer and projection (Figures 4b, 6), and by layer."""
    sparsity, tasks = map_sparsity(experiment), map_tasks(experiment)
    layers, projections = experiment.levels("layer"), experiment.levels("projection")
    filled = [_kept(experiment, task, sparsity, layers, projections) for task in tasks]
    top = max((v for matrix in filled for v in matrix[~np.isnan(matrix)]), default=1.0)
    count = len(tasks)
    figure, axes = plt.subplots(
        2,
        count,
        figsize=(max(6, 3.1 * count), 8),
        squeeze=False,
        height_ratios=[5, 3],
        sharey="row",
        layout="constrained",
    )
    for column, (task, matrix) in enumerate(zip(tasks, filled, strict=True)):
        axis = axes[0][column]
        image = axis.imshow(matrix, cmap="cividis", vmin=0, vmax=top, aspect="auto", origin="lower")
        axis.set_xticks(range(len(projections)), [p.removesuffix("_proj") for p in projections])
        axis.tick_params(axis="x", rotation=45)
        ticks = range(0, len(layers), max(1, len(layers) // 6))
        axis.set_yticks(list(ticks), [f"{layers[i]:g}" for i in ticks])
        axis.set_title(task, fontsize=10)
        _by_depth(axes[1][column], matrix, layers, projections)
    axes[0][0].set_ylabel("layer")
    axes[1][0].set_ylabel("kept, %")
    axes[1][0].legend(frameon=False, fontsize=8)
    at = f" at {100 * sparsity:g} % sparsity" if sparsity is not None else ""
    figure.suptitle(f"Where model-wise masks keep B{at}, % of each matrix")
    figure.colorbar(image, ax=axes[0, -1], label="kept, %")
    return figure


def _kept(
    experiment: Experiment,
    task: str,
    sparsity: float | None,
    layers: Sequence[float],
    projections: Sequence[str],
) -> Any:
    """Return the percentage of B in the mask, `[layers, projections]`; NaN if not measured."""
    matrix = np.full((max(1, len(layers)), max(1, len(projections))), np.nan)
    for (row, layer), (column, name) in product(enumerate(layers), enumerate(projections)):
        share = experiment.estimate("kept", task, sparsity=sparsity, layer=layer, projection=name)
        if share is not None:
            matrix[row, column] = 100 * share.value
    return matrix


def _by_depth(axis: Any, matrix: Any, layers: Sequence[float], projections: Sequence[str]) -> None:
    for label, names, dash, colour in (
        ("feed-forward", FEED_FORWARD, "-", panels.VERMILLION),
        ("attention", ATTENTION, "--", panels.BLUE),
    ):
        columns = [place for place, name in enumerate(projections) if name in names]
        if columns and layers:
            axis.plot(layers, matrix[:, columns].mean(axis=1), dash, color=colour, label=label)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("layer")
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def grid(experiment: Experiment) -> Figure:
    """Draw each measure by sparsity and learning rate, with the best of each sparsity framed."""
    measures = experiment.measures()
    sparsities, rates = experiment.levels("sparsity"), experiment.levels("learning_rate")
    size = (1.6 + 1.1 * len(rates), 1.6 + 0.55 * len(sparsities))
    figure, axes = plt.subplots(
        1, len(measures), figsize=(size[0] * len(measures), size[1]), squeeze=False
    )
    for axis, (task, metric) in zip(axes[0], measures, strict=True):
        matrix = np.full((len(sparsities), len(rates)), np.nan)
        for (row, sparsity), (column, rate) in product(enumerate(sparsities), enumerate(rates)):
            estimate = experiment.estimate(metric, task, sparsity=sparsity, learning_rate=rate)
            if estimate is not None:
                matrix[row, column] = estimate.value
        panels.heat(axis, matrix, metric)
        axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axis.set_yticks(range(len(sparsities)), [f"{100 * s:g} %" for s in sparsities])
        axis.set_xlabel("learning rate")
        axis.set_ylabel("sparsity")
        axis.set_title(cells.heading(task, metric), fontsize=10)
    return panels.finish(figure, "Sparsity by learning rate")


def property_1(experiment: Experiment) -> Figure:
    """Draw the mean |cos| over d_in, with a line for each rank and source of B, and the bound."""
    sources, ranks = experiment.levels("source"), experiment.levels("rank")
    figure, axes = plt.subplots(
        1, len(sources), figsize=(5.2 * len(sources), 4.2), squeeze=False, sharey=True
    )
    for axis, source in zip(axes[0], sources, strict=True):
        for place, rank in enumerate(ranks):
            look = panels.series(place)
            where = {"source": source, "rank": rank}
            panels.curve(axis, experiment, MEAN, where, look, f"rank {rank:g}")
            bound = look.grey()
            panels.curve(axis, experiment, "bound", where, bound, f"bound, rank {rank:g}")
        _one_over_root(axis, experiment, source)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        widths = sorted({row.factors["d_in"] for row in experiment.select(MEAN, source=source)})  # type: ignore[type-var]
        axis.set_xticks(widths, [f"{width:g}" for width in widths], rotation=45)
        axis.minorticks_off()
        axis.set_xlabel("d_in")
        axis.set_title(f"{source} B", fontsize=10)
        clean(figure, axis)
    axes[0][0].set_ylabel("mean |cos(ΔW_s, ΔW_t)|")
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return panels.finish(figure, "Property 1: updates of different tasks by input width")


def _one_over_root(axis: Any, experiment: Experiment, source: str) -> None:
    """Draw a line that falls like 1/√d_in, through the first point."""
    widths = sorted({r.factors["d_in"] for r in experiment.select(MEAN, source=source)})  # type: ignore[type-var]
    first = experiment.estimate(MEAN, source=source, d_in=widths[0]) if widths else None
    if first is not None and len(widths) > 1:
        heights = [first.value * math.sqrt(float(widths[0]) / float(w)) for w in widths]  # type: ignore[arg-type]
        axis.plot(widths, heights, ":", color="black", linewidth=1, label="∝ 1/√d_in")


def pareto(experiment: Experiment) -> Figure:
    """Draw safety over each task's score, with a point for each pair of weights, and the front."""
    main = dict(experiment.main_measures())
    refusals = main.pop("safety", "refusal_rate")
    weights = list(product(experiment.levels("safety_weight"), experiment.levels("task_weight")))
    count = max(1, len(main))
    figure, axes = plt.subplots(1, count, figsize=(4.2 * count, 4), squeeze=False, sharey=True)
    for axis, (task, metric) in zip(axes[0], main.items(), strict=False):
        points = []
        for safety, weight in weights:
            where = {"safety_weight": safety, "task_weight": weight}
            x = experiment.estimate(metric, task, **where)
            y = experiment.estimate(refusals, "safety", **where)
            if x is not None and y is not None:
                place = panels.scaled(metric, x.value), panels.scaled(refusals, y.value)
                points.append((*place, f"{safety:g}/{weight:g}"))
        panels.front(axis, points, METRICS[metric].better, METRICS[refusals].better)
        axis.set_xlabel(cells.heading(task, metric))
        clean(figure, axis)
    axes[0][0].set_ylabel(cells.heading("safety", refusals))
    title = "Safety against task score; labels: weight of safety / of the tasks"
    return panels.finish(figure, title)


#: The experiments with a second figure for held-out losses.
WITH_LOSSES = ("single-task", "merge-four", "merge-three")
FIGURES: dict[str, Callable[[Experiment], Figure]] = {
    "single-task": single_task,
    "merge-four": merges(4),
    "merge-three": merges(3),
    "continual": continual,
    "calibration-steps": calibration_steps,
    "sparsity-map": sparsity_map,
    "granularity": levels("scope", "The top tenth of B within ever smaller scopes"),
    "merge-weights": merge_weights,
    "sparsity-by-learning-rate": grid,
    "property-1": property_1,
    "merge-weight-pareto": pareto,
    "importance": levels("importance", "Masks by importance score"),
    "structured": levels("structure", "Structured masks of one budget"),
    "safety-baselines": safety_figure.safety_baselines,
    "frozen-a": doubt_figures.frozen_a,
    "projections": doubt_figures.projections,
    "random-masks": levels("mask", "Masks of B, each at the best of the same learning rates"),
}


def draw(experiment: Experiment, folder: Path) -> list[dict[str, str]]:
    """Draw an experiment's figures as PNG and SVG; return the `stem` and `title` of each."""
    drawn = {experiment.name: (experiment.spec.title, FIGURES[experiment.name])}
    if experiment.name in WITH_LOSSES and experiment.measures("loss"):
        name = f"{experiment.name}-losses"
        drawn[name] = (f"{experiment.spec.title}: held-out loss", losses)
    with style():
        for stem, (_, function) in drawn.items():
            save(function(experiment), folder, stem)
    return [{"stem": stem, "title": title} for stem, (title, _) in drawn.items()]
