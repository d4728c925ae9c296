"""The experiments' numbers as flat metrics for tracking, and as CSV for `dvc plots`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from studies.analysis import cells
from studies.analysis.rows import Experiment, Level
from studies.analysis.specs import METRICS, SPECS

COLUMNS = ("label", "task", "metric", "value", "low", "high", "seeds", "n")


def points(experiment: Experiment, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return each number, as mean over seeds, with its factors.

    Args:
        experiment: the experiment.
        without: factors to take the mean over.
    """
    names = [name for name in experiment.spec.factors if name not in without]
    keys = dict.fromkeys(
        (row.metric, row.task, *(row.factors[name] for name in names)) for row in experiment.rows
    )
    result = []
    for key in keys:
        metric, task, levels = str(key[0]), str(key[1]), key[2:]
        factors: dict[str, Level] = dict(zip(names, levels, strict=True))
        estimate = experiment.estimate(metric, task, **factors)
        if estimate is not None:
            facts = {"label": label(experiment, factors), "task": task, "metric": metric}
            result.append({**facts, **vars(estimate), **factors})
    return result


def label(experiment: Experiment, factors: dict[str, Level]) -> str:
    """Return a condition's label, e.g. `Concat, LoRI-S, weight 0.3`."""
    parts = []
    for name, level in factors.items():
        if level is None:
            continue
        factor = experiment.spec.factors[name]
        text = cells.level(factor, level)
        parts.append(text if isinstance(level, str) else f"{factor.label} {text}")
    return ", ".join(part for part in parts if part) or experiment.spec.title


def metrics(experiment: Experiment) -> dict[str, float]:
    """Return the means for tracking, by the path `experiment/levels…/task/metric`."""
    means = {}
    for point in points(experiment, without=("layer",)):
        levels = [_plain(point[name]) for name in experiment.spec.factors if name in point]
        parts = [experiment.name, *levels, point["task"], point["metric"]]
        means["/".join(part for part in parts if part)] = float(point["value"])
    return means


def _plain(level: Level) -> str:
    return "" if level is None else level if isinstance(level, str) else f"{level:g}"


def scores(experiment: Experiment) -> str:
    """Return the numbers of an experiment's figure as CSV with the columns `COLUMNS`.

    Shares are in percent. `label` holds the task, the metric and the condition.
    """
    main = set(experiment.main_measures()) or {("", name) for name in experiment.spec.required}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points(experiment, without=("layer",)):
        task, metric = point["task"], point["metric"]
        if (task, metric) in main or metric in experiment.spec.required:
            facts = {key: point[key] for key in COLUMNS}
            for key in ("value", "low", "high"):
                facts[key] = "" if facts[key] is None else _shown(metric, facts[key])
            facts["label"] = f"{cells.heading(task, metric)}: {point['label']}"
            writer.writerow(facts.values())
    return out.getvalue()


def _shown(metric: str, value: float) -> str:
    share = metric in METRICS and METRICS[metric].kind == "share"
    return f"{100 * value if share else value:.6g}"


def section(folders: Mapping[str, str]) -> list[Any]:
    """Return the section `plots:` of a `dvc.yaml` for the report of some experiments.

    Args:
        folders: by experiment, the folder of its page, relative to `dvc.yaml`.

    Returns:
        For each experiment a bar plot of its numbers, and its figure.
    """
    plots: list[Any] = []
    for name, folder in folders.items():
        bars = {
            "title": SPECS[name].title,
            "template": "bar_horizontal",
            "x": "value",
            "y": {f"{folder}/plots/{name}.csv": "label"},
        }
        plots += [{name: bars}, f"{folder}/{name}.png"]
    return plots
