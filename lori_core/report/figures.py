"""The figures of the report, readable in greyscale and with colour blindness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from lori_core.evaluation.rows import ADAPTER, CALIBRATED
from lori_core.report import searches
from lori_core.report.tables import excess as excess_text

#: The colours of Okabe and Ito; hatches distinguish the bars as well.
COLOURS = ["#999999", "#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#F0E442"]
HATCHES = ["", "//", "", "..", "xx", "\\\\", "oo", "--"]


def scores(summary: dict[str, Any]) -> Any:
    """Draw each model's score on each task, with its 95 % interval."""
    tasks, rows = summary["tasks"], summary["rows"]
    figure, axis = plt.subplots(figsize=(11, 4.6))
    width = 0.86 / len(rows)
    for index, row in enumerate(rows):
        by_task = [row["scores"].get(task, {}) for task in tasks]
        scored = [(i, score) for i, score in enumerate(by_task) if score.get("n")]
        places = [i - 0.43 + (index + 0.5) * width for i, _ in scored]
        heights = [100 * s["score"] for _, s in scored]
        errors = [
            [100 * (s["score"] - s["low"]) for _, s in scored],
            [100 * (s["high"] - s["score"]) for _, s in scored],
        ]
        axis.bar(
            places,
            heights,
            width * 0.92,
            yerr=errors,
            label=row["model"],
            color=COLOURS[index % len(COLOURS)],
            # After the last colour, each colour is combined with another hatch.
            hatch=HATCHES[(index + index // len(COLOURS)) % len(HATCHES)],
            edgecolor="white",
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#222222"},
        )
    axis.set_xticks(range(len(tasks)), tasks)
    axis.set_ylim(0, 105)
    axis.set_ylabel("score, % (95 % interval)")
    axis.set_title("Every model on every task's test set")
    axis.legend(fontsize=8, ncols=1, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return clean(figure, axis)


def sparsity(summary: dict[str, Any]) -> Any:
    """Draw the density of the masks by layer and by projection, for each task with a mask."""
    tasks = list(summary["masks"])
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=[3, 2])
    styles = ["-", "--", "-.", ":"]
    for index, task in enumerate(tasks):
        densities = summary["masks"][task]["kept"]
        layers = sorted((k for k in densities["layer"] if k.isdigit()), key=int)
        axes[0].plot(
            [int(k) for k in layers],
            [100 * densities["layer"][k] for k in layers],
            styles[index % 4],
            color=COLOURS[(index + 1) % len(COLOURS)],
            label=task,
        )
    axes[0].set_xlabel("layer")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("kept, %")
    axes[0].legend(frameon=False, fontsize=8)
    names = list(summary["masks"][tasks[0]]["kept"]["projection"])
    width = 0.8 / len(tasks)
    for index, task in enumerate(tasks):
        densities = summary["masks"][task]["kept"]["projection"]
        axes[1].bar(
            [i - 0.4 + (index + 0.5) * width for i in range(len(names))],
            [100 * densities[name] for name in names],
            width * 0.9,
            color=COLOURS[(index + 1) % len(COLOURS)],
            hatch=HATCHES[(index + 1) % len(HATCHES)],
            edgecolor="white",
            label=task,
        )
    axes[1].set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes[1].set_ylabel("kept, %")
    figure.suptitle("Where the masks keep B: by layer and by projection")
    for axis in axes:
        clean(figure, axis)
    return figure


def overlap(summary: dict[str, Any]) -> Any:
    """Draw the overlap of each pair of masks, measured and expected for independent masks."""
    return _matrices(
        summary,
        [
            (ADAPTER, "mask_overlap", "measured", 100),
            (ADAPTER, "expected_overlap", "expected", 100),
        ],
        "Mask overlap, % of all entries of B",
        "{:.2f}",
    )


def interference(summary: dict[str, Any]) -> Any:
    """Draw the mean |cosine| between the updates of each pair of adapters."""
    return _matrices(
        summary,
        [
            (CALIBRATED, "mean_abs_cosine", "LoRI-D", 1),
            (ADAPTER, "mean_abs_cosine", summary["own"], 1),
        ],
        "Interference: mean |cos(ΔW_s, ΔW_t)| over modules",
        "{:.4f}",
    )


def pair_matrices(pairs: dict[str, dict[str, float]], names: list[str]) -> Any:
    """Draw the cosines and the mask overlap of pairs of adapters.

    Args:
        pairs: `interference.summarise` by `first+second`.
        names: the adapters' names, in the order of rows and columns.
    """
    panels = [
        ("mean_abs_cosine", "mean |cos(ΔW_s, ΔW_t)|", 1, "{:.4f}"),
        ("max_abs_cosine", "largest |cos| of a module", 1, "{:.4f}"),
        ("mask_overlap", "mask overlap, % of B", 100, "{:.2f}"),
    ]
    present = [p for p in panels if any(p[0] in facts for facts in pairs.values())]
    figure, axes = plt.subplots(1, len(present), figsize=(4.6 * len(present), 4.1), squeeze=False)
    for axis, (key, title, factor, form) in zip(axes[0], present, strict=True):
        _panel(figure, axis, _matrix(pairs, key, names) * factor, names, title, form, None)
    figure.suptitle("Interference between adapters")
    figure.tight_layout()
    return figure


def excess(summary: dict[str, Any]) -> Any:
    """Draw the excess loss of each task in each merge (eq. 3), with its 95 % interval."""
    tasks, merges = summary["tasks"], list(summary["excess"])
    cells = [[summary["excess"][name]["excess"].get(task) for task in tasks] for name in merges]
    values = np.array(
        [
            [np.nan if c is None or c["excess"] is None else c["excess"] for c in row]
            for row in cells
        ]
    )
    size = (3.4 + 1.5 * len(tasks), 1.5 + 0.6 * len(merges))
    figure, axis = plt.subplots(figsize=size)
    known = values[~np.isnan(values)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if low == high:
        low, high = low - 1, high + 1
    image = axis.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axis.set_xticks(range(len(tasks)), tasks)
    axis.set_yticks(range(len(merges)), merges)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "black" if value > (low + high) / 2 else "white"
            text = excess_text(cells[row][column]).replace(" [", "\n[")
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axis.set_title("Excess loss in the merge, nats per example [95 % interval]", fontsize=10)
    figure.colorbar(image, ax=axis)
    figure.tight_layout()
    return figure


def pareto(summary: dict[str, Any]) -> Any:
    """Draw the candidates of each search: mean gain retained against safety, with the front."""
    results = summary["search"]
    figure, axes = plt.subplots(1, len(results), figsize=(4.8 * len(results), 4), squeeze=False)
    for axis, (name, facts) in zip(axes[0], results.items(), strict=True):
        label, points = searches.points(facts)
        front = [points[index] for index in searches.front(points)]
        axis.plot(*zip(*front, strict=True), "--", color="#999999", label="Pareto front")
        for number, (x, y) in enumerate(points, start=1):
            chosen = number == facts["chosen"] + 1
            marker, colour = ("*", COLOURS[4]) if chosen else ("o", COLOURS[2])
            what = f"{number} {facts['candidates'][number - 1]['name']}" + " (chosen)" * chosen
            axis.plot([x], [y], marker, color=colour, markersize=12 if chosen else 7, label=what)
            axis.annotate(str(number), (x, y), xytext=(6, 4), textcoords="offset points")
        axis.set_xlabel("gain retained, mean over the tasks, %")
        axis.set_ylabel(label)
        axis.set_title(f"Merge {name}: candidates on validation examples", fontsize=10)
        axis.legend(fontsize=7, frameon=False)
        clean(figure, axis)
    return figure


def _matrices(
    summary: dict[str, Any], panels: list[tuple[str, str, str, float]], title: str, text: str
) -> Any:
    tasks = summary["tasks"]
    filled = [_matrix(summary["interference"][m], key, tasks) * f for m, key, _, f in panels]
    top = max((v for matrix in filled for v in matrix[~np.isnan(matrix)]), default=1) or 1
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.9))
    for axis, matrix, (_, _, name, _) in zip(axes, filled, panels, strict=True):
        _panel(figure, axis, matrix, tasks, name, text, top)
    figure.suptitle(title)
    figure.tight_layout()
    return figure


def _panel(
    figure: Any, axis: Any, matrix: Any, names: list[str], title: str, form: str, top: float | None
) -> None:
    """Draw one square matrix with its numbers; `top` is the upper end of the colour scale."""
    top = top or float(np.nanmax(matrix)) or 1
    image = axis.imshow(matrix, cmap="cividis", vmin=0, vmax=top)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(title, fontsize=10)
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            colour = "black" if value > 0.5 * top else "white"
            axis.text(
                column, row, form.format(value), ha="center", va="center", color=colour, fontsize=8
            )
    figure.colorbar(image, ax=axis, shrink=0.8)


def _matrix(pairs: dict[str, dict[str, float]], key: str, tasks: list[str]) -> Any:
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for pair, facts in pairs.items():
        first, second = (tasks.index(name) for name in pair.split("+"))
        matrix[first, second] = matrix[second, first] = facts.get(key, np.nan)
    return matrix


def clean(figure: Any, axis: Any) -> Any:
    """Remove the upper and right spines, add a light grid, and return the figure, laid out."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    figure.tight_layout()
    return figure


FIGURES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "scores": ("Scores", scores),
    "sparsity": ("Where the masks keep B", sparsity),
    "overlap": ("Mask overlap", overlap),
    "interference": ("Interference between adapters", interference),
    "excess": ("Interference in the merges' losses", excess),
    "pareto": ("Search for merge weights", pareto),
}
#: The part of the summary that a figure needs, for figures that a run may not have.
NEEDED = {"excess": "excess", "sparsity": "masks", "pareto": "search"}


def save(figure: Any, folder: Path, stem: str) -> None:
    """Write a figure as PNG and SVG, without timestamps, and close it."""
    figure.savefig(folder / f"{stem}.png", dpi=130, metadata={"Software": None})
    figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})
    plt.close(figure)


def style() -> Any:
    """Return the matplotlib context for drawing and saving figures, with fixed ids in the SVG."""
    return plt.rc_context({"svg.hashsalt": "lori", "font.size": 9})


def draw(summary: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Draw all figures for which the summary has data; return (file stem, title) of each."""
    measured = {stem: bool(summary[key]) for stem, key in NEEDED.items()}
    selected = {stem: pair for stem, pair in FIGURES.items() if measured.get(stem, True)}
    with style():
        for stem, (_, function) in selected.items():
            save(function(summary), folder, stem)
    return [(stem, title) for stem, (title, _) in selected.items()]
