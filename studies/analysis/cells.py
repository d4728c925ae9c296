"""The texts in tables: numbers with intervals, labels of tasks, metrics and levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies.analysis.rows import Estimate, Experiment, Level
from studies.analysis.specs import METRICS, Factor

Table = dict[str, Any]
NOTHING = "-"
#: The heading of the paper's numbers.
PAPER = "paper"


def estimate(metric: str, value: Estimate | None) -> str:
    """Return a number with its interval, formatted for its metric, e.g. `61.2 [58.1-64.3]`."""
    if value is None:
        return NOTHING
    middle = number(metric, value.value)
    if value.low is None or value.high is None:
        return middle
    low, high = number(metric, value.low), number(metric, value.high)
    joint = "-" if value.low >= 0 else ", "
    return f"{middle} [{low}{joint}{high}]"


def number(metric: str, value: float) -> str:
    """Return a number formatted for its metric: shares in percent, losses to two places."""
    kind = METRICS[metric].kind if metric in METRICS else "plain"
    if kind == "share":
        return f"{100 * value:.1f}"
    if kind == "loss":
        return f"{value:.2f}"
    return f"{value:,.0f}" if kind == "count" else f"{value:.3g}"


def heading(task: str, metric: str, *, unit: bool = True) -> str:
    """Return a measure's heading, e.g. `math: exact match, %`."""
    known = METRICS.get(metric)
    label = known.label if known else metric.replace("_", " ")
    units = {"share": ", %", "loss": ", nats"}
    text = label + (units.get(known.kind, "") if known and unit else "")
    return f"{task}: {text}" if task else text


def level(factor: Factor, value: Level) -> str:
    """Return the label of a factor's level."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return factor.names.get(value, value)
    return f"{value:g}"


def levels(experiment: Experiment, name: str) -> list[tuple[Level, str]]:
    """Return the levels of a factor in the rows, with their labels."""
    factor = experiment.spec.factors[name]
    return [(value, level(factor, value)) for value in experiment.levels(name)]


def labels(experiment: Experiment, point: Mapping[str, Level]) -> list[str]:
    """Return the labels of a point's factor levels."""
    return [level(experiment.spec.factors[key], value) for key, value in point.items()]


def table(
    name: str, title: str, columns: list[str], rows: list[list[str]], note: str = ""
) -> Table:
    """Return a table of texts as a mapping."""
    return {"name": name, "title": title, "columns": columns, "rows": rows, "note": note}
