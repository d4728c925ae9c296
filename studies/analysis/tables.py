"""The tables of the experiments, in the form of the paper's tables, with the paper's numbers.

A table is `{"name", "title", "columns", "rows", "note"}` with texts only, as in `report.tables`;
the page and the Markdown show the same cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from studies.analysis import cells, paper
from studies.analysis.cells import Table, labels, table
from studies.analysis.doubts import tables as doubts
from studies.analysis.items import LIKELIHOOD
from studies.analysis.mask_claims import map_sparsity, map_tasks
from studies.analysis.rows import Experiment, Level, Wanted
from studies.analysis.specs import ATTENTION, FEED_FORWARD, MERGES, METHODS, SCORES

NONE = cells.NOTHING
#: A table with more measures than this is split into scores and losses.
MOST_COLUMNS = 5
BESIDE = (
    "Columns 'paper' are its numbers on Llama-3-8B at rank 32, in percent, on its own test sets: "
    "compare directions, not heights."
)


def build(experiment: Experiment) -> list[Table]:
    """Return an experiment's tables that have rows."""
    built = [*TABLES[experiment.name](experiment), doubts.learning_rates(experiment)]
    return [table for table in built if table["rows"]]


def single_task(experiment: Experiment) -> list[Table]:
    """Return tables of scores (the paper's Tables 1, 2, 11, 12), other measures, and costs."""
    methods = experiment.levels("method")
    lookup = paper.single_task
    scores = _scored(experiment, [{"method": m} for m in methods], ["method"])
    for row, method in zip(scores["rows"], methods, strict=True):
        _insert_paper(row, [lookup(method, task) for task, _ in experiment.measures(*SCORES)])
    other = _others(experiment, [{"method": m} for m in methods], ["method"])
    return [_with_paper(scores, experiment), other, _costs(experiment)]


def _costs(experiment: Experiment) -> Table:
    """Return a table of each method's trainable parameters, memory, sizes and learning rates."""
    rates = experiment.measures("learning_rate")
    tasks = list(dict.fromkeys(r.task for r in experiment.rows if r.metric == "learning_rate"))
    rows = []
    for method in experiment.levels("method"):
        count = experiment.estimate("trainable_parameters", method=method)
        if count is None and not experiment.select("learning_rate", method=method):
            continue
        share = experiment.estimate("trainable_share", method=method)
        sizes = [experiment.estimate(m, method=method) for m in ("state_bytes", "artifact_bytes")]
        printed = NONE if count is None else f"{count.value:,.0f}"
        if share is not None:
            printed += f" ({100 * share.value:.3g}%)"
        rows.append(
            [
                METHODS[method],
                printed,
                paper.parameters(method) or NONE,
                *(NONE if s is None else f"{s.value / 1e6:,.1f}" for s in sizes),
                *(_rate(experiment, method, task) for task in tasks),
            ]
        )
    columns = ["method", "trained values", "paper", "training state, MB", "artifact, MB"]
    columns += [f"learning rate, {task}" if task else "learning rate" for task in tasks]
    note = "The paper's counts are at rank 32 on Llama-3-8B. " + (
        "Learning rates were chosen on validation." if rates or tasks else ""
    )
    return table("costs", "What each method trains", columns, rows, note.strip())


def _rate(experiment: Experiment, method: str, task: str) -> str:
    rates = sorted(set(experiment.by_seed("learning_rate", task, method=method).values()))
    return ", ".join(f"{rate:.0e}".replace("e-0", "e-") for rate in rates) or NONE


def merges(count: int) -> Callable[[Experiment], list[Table]]:
    """Return the function that builds the tables of merging `count` adapters."""

    def build_tables(experiment: Experiment) -> list[Table]:
        points = merge_points(experiment)
        keys = ["merge", "method"]
        keys += [
            key for key in ("weight", "density") if any(p.get(key) is not None for p in points)
        ]
        scores = _scored(experiment, points, keys)
        for row, point in zip(scores["rows"], points, strict=True):
            printed = [
                paper.merged(count, str(point["merge"]), str(point["method"]), task)
                for task, _ in experiment.measures(*SCORES)
            ]
            _insert_paper(row, printed)
        return [_with_paper(scores, experiment), _others(experiment, points, keys)]

    return build_tables


def merge_points(experiment: Experiment) -> list[dict[str, Level]]:
    """Return each merge that was run, in the order of the paper's tables."""
    keys = ("merge", "method", "weight", "density")
    distinct = {tuple(row.factors[key] for key in keys) for row in experiment.rows}
    ways = list(MERGES)

    def place(point: tuple[Level, ...]) -> tuple[Any, ...]:
        merge, method, weight, density = point
        single = merge == "single-task"
        return (
            not single,
            list(METHODS).index(str(method)),
            ways.index(str(merge)),
            weight or 0,
            density,
        )

    return [dict(zip(keys, point, strict=True)) for point in sorted(distinct, key=place)]


def continual(experiment: Experiment) -> list[Table]:
    """Return a table of safety, over-refusal and the learned task's score (Figure 3)."""
    measures = experiment.measures()
    safety = [(t, m) for t, m in measures if t == "safety"]
    own = [(t, m) for t, m in measures if t != "safety"]
    kinds = [
        (title, metrics)
        for title, metrics in (
            ("score, %", SCORES),
            ("by log-likelihood, %", (LIKELIHOOD,)),
            ("loss, nats", ("loss",)),
        )
        if any(metric in metrics for _, metric in own)
    ]
    rows = []
    for method, learned in product(experiment.levels("method"), learned_levels(experiment)):
        texts = [_cell(experiment, m, t, method=method, learned=learned) for t, m in safety]
        for _, metrics in kinds:
            metric = next((m for t, m in own if t == learned and m in metrics), None)
            text = "" if not learned else NONE
            if metric is not None:
                text = _cell(experiment, metric, learned, method=method, learned=learned)
            texts.append(text)
        if any(text not in (NONE, "") for text in texts):
            rows.append([METHODS[method], learned or "(safety alone)", *texts])
    columns = ["method", "learned", *(cells.heading(t, m) for t, m in safety)]
    columns += [f"learned task: {title}" for title, _ in kinds]
    return [table("continual", "Safety before and after learning a task", columns, rows)]


def _cell(experiment: Experiment, metric: str, task: str, **where: Wanted) -> str:
    return cells.estimate(metric, experiment.estimate(metric, task, **where))


def learned_levels(experiment: Experiment) -> list[str]:
    """Return the tasks learned after safety; the empty text, for none, comes first."""
    levels: list[str] = experiment.levels("learned")
    return sorted(levels, key=lambda task: task != "")


def sweep(*keys: str) -> Callable[[Experiment], list[Table]]:
    """Return the function that builds a table with a row for each combination of the factors.

    With many measures it builds two tables: scores and losses.

    Args:
        keys: the names of the factors.
    """

    def build_tables(experiment: Experiment) -> list[Table]:
        present = [key for key in keys if experiment.levels(key)]
        points = [
            dict(zip(present, point, strict=True))
            for point in product(*(experiment.levels(key) for key in present))
        ]
        measures = experiment.measures()
        losses = [pair for pair in measures if pair[1] == "loss"]
        title = experiment.spec.title
        if len(measures) <= MOST_COLUMNS or len(losses) == len(measures):
            return [_points(experiment, "points", title, points, measures)]
        scores = [pair for pair in measures if pair not in losses]
        return [
            _points(experiment, "points", f"{title}: scores", points, scores),
            _points(experiment, "losses", f"{title}: held-out losses", points, losses),
        ]

    return build_tables


def _points(
    experiment: Experiment,
    name: str,
    title: str,
    points: Sequence[Mapping[str, Level]],
    measures: Sequence[tuple[str, str]],
) -> Table:
    """Return a table with a row for each measured point and a column for each measure."""
    rows = []
    for point in points:
        estimates = [experiment.estimate(m, t, **point) for t, m in measures]
        texts = [cells.estimate(m, e) for (_, m), e in zip(measures, estimates, strict=True)]
        if any(estimates):
            rows.append([*labels(experiment, point), *texts])
    columns = [experiment.spec.factors[key].label for key in points[0]] if points else []
    columns += [cells.heading(task, metric) for task, metric in measures]
    return table(name, title, columns, rows)


def calibration_steps(experiment: Experiment) -> list[Table]:
    """Return a table with a row for each number of steps; 0 steps are a random mask."""
    built = sweep("calibration_steps")(experiment)
    for row in (row for part in built for row in part["rows"]):
        row[0] = "0 (random mask)" if row[0] == "0" else row[0]
    return built


def sparsity_map(experiment: Experiment) -> list[Table]:
    """Return a table of the share of B in the mask, by projection and by half of the layers."""
    sparsity, tasks = map_sparsity(experiment), map_tasks(experiment)
    layers, projections = experiment.levels("layer"), experiment.levels("projection")
    half = len(layers) // 2
    groups: list[tuple[str, dict[str, Wanted]]] = [
        (name, {"projection": name}) for name in projections
    ]
    groups += [
        ("attention", {"projection": ATTENTION}),
        ("feed-forward", {"projection": FEED_FORWARD}),
        (f"lower layers ({half})", {"layer": tuple(layers[:half])}),
        (f"upper layers ({half})", {"layer": tuple(layers[-half:] if half else ())}),
    ]
    rows = []
    for name, where in groups:
        wanted = {"layer": tuple(layers), "projection": tuple(projections), **where}
        estimates = [experiment.estimate("kept", t, sparsity=sparsity, **wanted) for t in tasks]
        rows.append([name, *(cells.estimate("kept", e) for e in estimates)])
    columns = ["matrices", *(f"{task}: kept, %" if task else "kept, %" for task in tasks)]
    note = "Means over matrices, each counted once."
    if sparsity is not None:
        note += f" Sparsity {sparsity:g} over the whole model."
    return [table("kept", "Kept share by projection and depth", columns, rows, note)]


def grid(experiment: Experiment) -> list[Table]:
    """Return a table for each measure: rows by sparsity, columns by learning rate (Figure 5)."""
    built = []
    for task, metric in experiment.measures():
        rates = experiment.levels("learning_rate")
        rows = [
            [
                f"{sparsity:g}",
                *(
                    cells.estimate(
                        metric,
                        experiment.estimate(metric, task, sparsity=sparsity, learning_rate=rate),
                    )
                    for rate in rates
                ),
            ]
            for sparsity in experiment.levels("sparsity")
        ]
        columns = ["sparsity", *(f"learning rate {rate:g}" for rate in rates)]
        built.append(table(f"{task}-{metric}", cells.heading(task, metric), columns, rows))
    return built


def property_1(experiment: Experiment) -> list[Table]:
    """Return a table of the cosines and their bound."""
    rows = []
    keys = ("source", "rank", "d_in")
    metrics = ("mean_abs_cosine", "max_abs_cosine", "bound")
    for point in product(*(experiment.levels(key) for key in keys)):
        where = dict(zip(keys, point, strict=True))
        estimates = [experiment.estimate(metric, **where) for metric in metrics]
        if any(estimates):
            texts = [cells.estimate(m, e) for m, e in zip(metrics, estimates, strict=True)]
            rows.append([*labels(experiment, where), *texts])
    columns = ["B", "rank", "d_in", "mean |cos|", "largest |cos|", "bound"]
    return [table("cosines", "Cosine between the updates of two tasks", columns, rows)]


def _scored(
    experiment: Experiment, points: Sequence[Mapping[str, Level]], keys: Sequence[str]
) -> Table:
    """Return a table with a row for each point and a column for each task's score."""
    measures = experiment.measures(*SCORES)
    rows = [
        [
            *labels(experiment, {key: point[key] for key in keys}),
            *(cells.estimate(m, experiment.estimate(m, t, **point)) for t, m in measures),
        ]
        for point in points
    ]
    columns = [experiment.spec.factors[key].label for key in keys]
    columns += [cells.heading(task, metric) for task, metric in measures]
    return table("scores", "Scores on the test sets", columns, rows)


def _others(
    experiment: Experiment, points: Sequence[Mapping[str, Level]], keys: Sequence[str]
) -> Table:
    """Return a table with a row for each point and a column for each measure except scores."""
    measures = experiment.measures("pass_at_5", "pass_at_10", LIKELIHOOD, "over_refusal", "loss")
    title = "Over-refusal and held-out loss, lower is better"
    if any(metric == LIKELIHOOD for _, metric in measures):
        title = "Multiple choice by log-likelihood, higher is better; " + title.lower()
    built = _points(experiment, "others", title, points, measures)
    # Only the factors in `keys` are shown.
    places = [place for place, key in enumerate(points[0]) if key in keys] if points else []
    first = len(points[0]) if points else 0
    for line in (built["columns"], *built["rows"]):
        line[:first] = [line[place] for place in places]
    return built


def _insert_paper(row: list[str], values: Sequence[float | None]) -> None:
    """Insert the paper's numbers into a row, each after our number of the same task."""
    first = len(row) - len(values)
    printed = [NONE if value is None else f"{value:.1f}" for value in values]
    row[first:] = [cell for pair in zip(row[first:], printed, strict=True) for cell in pair]


def _with_paper(scores: Table, experiment: Experiment) -> Table:
    count = len(experiment.measures(*SCORES))
    first = len(scores["columns"]) - count
    columns = scores["columns"][:first]
    for name in scores["columns"][first:]:
        columns += [name, cells.PAPER]
    return scores | {"columns": columns, "note": BESIDE}


TABLES: dict[str, Callable[[Experiment], list[Table]]] = {
    "single-task": single_task,
    "merge-four": merges(4),
    "merge-three": merges(3),
    "continual": continual,
    "calibration-steps": calibration_steps,
    "sparsity-map": sparsity_map,
    "granularity": sweep("scope"),
    "merge-weights": sweep("merge", "method", "weight"),
    "sparsity-by-learning-rate": grid,
    "property-1": property_1,
    "merge-weight-pareto": sweep("safety_weight", "task_weight"),
    "importance": sweep("importance"),
    "structured": sweep("structure"),
    "safety-baselines": sweep("learned", "method", "keeping"),
    "frozen-a": sweep("method", "rank"),
    "projections": doubts.projections,
    "random-masks": sweep("mask"),
}
