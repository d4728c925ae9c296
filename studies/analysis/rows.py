"""Read and check an experiment's rows, and estimate means over seeds.

The file `metrics/experiments/NAME.json` is `{"experiment", "info", "rows"}`; a row is flat:
`metric`, `value` (null if nothing could be measured), `task` ("" for none), `seed`; `low`, `high`
and `n` if it is a score over items; `items` and `item_set`, the outcome of each item (`items`), in
rows of newer versions; `tried`, the candidates of a learning rate; and the levels of the
experiment's factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.core.errors import DataError, InputError, unknown
from lori_core.core.files.atomic import read_json
from lori_core.evaluation.statistics import mean_interval
from studies.analysis import items, specs
from studies.analysis.specs import METRICS, SPECS, Spec

Level = str | float | None
#: A level, or several levels of which any matches.
Wanted = Level | tuple[Level, ...]
_FIELDS = ("metric", "value", "task", "seed", "low", "high", "n")


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        metric: the metric's name.
        value: in the metric's unit; None if there was nothing to measure.
        task: the task it was measured on; "" for none.
        seed: the seed of the run.
        low: the lower end of its 95 % interval over items; None if it is no score over items.
        high: the upper end.
        n: the number of items; 0 if it is no score over items.
        factors: the level of each factor.
        items: the outcome of each item, in the order of the test set; empty if not recorded.
        item_set: the digest of the items' ids; empty if not recorded.
        tried: of a learning rate that was chosen, the validation loss of each candidate.
    """

    metric: str
    value: float | None
    task: str
    seed: int
    low: float | None
    high: float | None
    n: int
    factors: Mapping[str, Level]
    items: tuple[float, ...] = ()
    item_set: str = ""
    tried: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """The mean of a number over all seeds, with its interval.

    Attributes:
        value: the mean over seeds.
        low: the lower end of its 95 % interval: the wider of Student's over seeds and, for a share,
            the one over a seed's items; None if neither is known. All seeds are scored on the same
            items, so more seeds do not narrow the interval over items. If all seeds have the same
            number, as those of the untrained base model, it is the one over the items.
        high: the upper end.
        seeds: the number of seeds.
        n: the number of items of all seeds together.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    n: int


@dataclass(frozen=True)
class Experiment:
    """An experiment's checked rows.

    Attributes:
        name: the experiment's name.
        spec: its factors and place in the paper.
        info: how it was run.
        rows: all rows, in the file's order.
    """

    name: str
    spec: Spec
    info: Mapping[str, Any]
    rows: tuple[Row, ...]

    @cached_property
    def _by_metric(self) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.value is not None:
                rows.setdefault(row.metric, []).append(row)
        return rows

    def select(self, metric: str, task: str | None = None, **factors: Wanted) -> list[Row]:
        """Return the matching rows that have a value; a factor that is not given may have any."""
        return [
            row
            for row in self._by_metric.get(metric, [])
            if (task is None or row.task == task)
            and all(_is(row.factors.get(name), level) for name, level in factors.items())
        ]

    def by_seed(self, metric: str, task: str | None = None, **factors: Wanted) -> dict[int, float]:
        """Return the mean of the matching rows, by seed."""
        by_seed: dict[int, list[float]] = {}
        for row in self.select(metric, task, **factors):
            if row.value is not None:
                by_seed.setdefault(row.seed, []).append(row.value)
        return {seed: fmean(values) for seed, values in sorted(by_seed.items())}

    def estimate(self, metric: str, task: str | None = None, **factors: Wanted) -> Estimate | None:
        """Return the mean over seeds of the matching rows; None if there are none."""
        rows = self.select(metric, task, **factors)
        seeds = self.by_seed(metric, task, **factors)
        if not seeds:
            return None
        middle = fmean(seeds.values())
        low, high = _interval(rows, list(seeds.values()), middle, _kind(metric) == "share")
        n = sum(row.n for row in rows)
        return Estimate(middle, low, high, len(seeds), n)

    def levels(self, factor: str) -> list[Any]:
        """Return a factor's levels in the rows: names in the spec's order, numbers sorted."""
        all_levels = (row.factors.get(factor) for row in self.rows)
        levels = [level for level in all_levels if level is not None]
        if all(isinstance(level, str) for level in levels):
            names = [str(level) for level in levels]
            known = [*self.spec.factors[factor].names, *specs.TASKS, *specs.PROJECTIONS]
            return specs.in_order(names, known)
        return sorted(set(levels), key=lambda level: (isinstance(level, str), level))

    def tasks(self) -> list[str]:
        """Return the tasks that were scored, in the order of `specs.TASKS`."""
        named = (row.task for row in self.rows if row.task and row.metric in specs.MEASURES)
        return specs.in_order(named, specs.TASKS)

    def measures(self, *kinds: str) -> list[tuple[str, str]]:
        """Return the (task, metric) of all rows, tasks in order and scores before losses.

        Args:
            kinds: the metrics to return; by default `specs.MEASURES`.
        """
        measured = {(row.task, row.metric) for row in self.rows}
        wanted = kinds or specs.MEASURES
        return [(t, m) for t in self.tasks() for m in wanted if (t, m) in measured]

    def main_measures(self) -> list[tuple[str, str]]:
        """Return (task, metric) of each task's score, or of its loss if it has no score."""
        scored = dict(reversed(self.measures(*specs.SCORES)))
        return [(t, scored.get(t, "loss")) for t in self.tasks() if t in scored or self._loss(t)]

    def _loss(self, task: str) -> bool:
        return (task, "loss") in self.measures("loss")

    def seeds(self) -> list[int]:
        """Return the seeds of the rows, sorted."""
        return sorted({row.seed for row in self.rows})


def _interval(
    rows: Sequence[Row], values: Sequence[float], middle: float, share: bool
) -> tuple[float | None, float | None]:
    """Return the interval of an `Estimate`."""
    below, above = _items(rows) if len(rows) == len(values) else (None, None)
    known = below is not None and above is not None
    one_run = len(set(values)) == 1  # one seed, or the base model, which no seed changes
    if len(values) > 1 and not (one_run and known):
        low, high = mean_interval(values)
        if share and below is not None and above is not None:
            low, high = min(low, middle - below), max(high, middle + above)
    elif below is not None and above is not None:
        low, high = middle - below, middle + above
    else:
        return None, None
    return (max(0.0, low), min(1.0, high)) if share else (low, high)


def _items(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """Return how far the intervals over items reach below and above the values, on average."""
    known = [(row.value, row.low, row.high) for row in rows]
    below = [v - low for v, low, _ in known if v is not None and low is not None]
    above = [high - v for v, _, high in known if v is not None and high is not None]
    if len(below) < len(rows) or len(above) < len(rows):
        return None, None
    return fmean(below), fmean(above)


def _is(level: Level, wanted: Wanted) -> bool:
    return level in wanted if isinstance(wanted, tuple) else level == wanted


def _kind(metric: str) -> str:
    return METRICS[metric].kind if metric in METRICS else "plain"


def read(path: Path) -> Experiment:
    """Read and check an experiment's file.

    Raises:
        InputError: there is no such file, or it is not JSON.
        DataError: it has another form; the message names the row's number and field.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise DataError(f"{path}: expected an object with experiment, info and rows; run it again")
    name = content.get("experiment")
    if name not in SPECS:
        raise DataError(f"{path}: " + unknown("experiment", str(name), SPECS))
    if name != path.stem:
        raise DataError(f"{path}: holds the experiment {name!r}; name the file {name}.json")
    info = content.get("info", {})
    if not isinstance(info, dict):
        raise DataError(f"{path}: info: expected an object, got {info!r}")
    spec = SPECS[name]
    rows = tuple(
        _row(raw, spec, f"{path}: row {number}")
        for number, raw in enumerate(content["rows"], start=1)
    )
    if not rows:
        raise DataError(f"{path}: rows is empty; run the experiment again")
    _distinct(rows, path)
    return Experiment(name, spec, info, rows)


def read_folder(folder: Path) -> dict[str, Experiment]:
    """Read the experiments in a folder, in the catalogue's order.

    Raises:
        InputError: there are none.
        DataError: a file is not an experiment's.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    for stem, path in files.items():
        if stem not in SPECS:
            raise DataError(f"{path}: " + unknown("experiment", stem, SPECS))
    if not files:
        raise InputError(f"{folder}: no experiment has run; start one with `lori experiment NAME`")
    return {name: read(files[name]) for name in SPECS if name in files}


def _row(raw: Any, spec: Spec, where: str) -> Row:
    if not isinstance(raw, dict):
        raise DataError(f"{where}: expected an object, got {raw!r}")
    metric, task, seed = raw.get("metric"), raw.get("task", ""), raw.get("seed")
    if not isinstance(metric, str) or not metric:
        raise DataError(f"{where}: metric: expected a name, got {metric!r}")
    if not isinstance(task, str):
        raise DataError(f"{where}: task: expected a name or an empty string, got {task!r}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise DataError(f"{where}: seed: expected a whole number, got {seed!r}")
    value, low, high = (_number(raw, key, where) for key in ("value", "low", "high"))
    n = raw.get("n") or 0
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise DataError(f"{where}: n: expected a number of items, got {n!r}")
    if value is None or low is None or high is None:
        low = high = None
    elif not low - 1e-9 <= value <= high + 1e-9:
        raise DataError(f"{where}: value {value!r} is outside its interval [{low!r}, {high!r}]")
    if value is not None and _kind(metric) == "share" and not 0 <= value <= 1:
        raise DataError(f"{where}: value: {metric} is a share from 0 to 1, got {value!r}")
    factors = {name: _factor(raw, name, spec, where) for name in spec.factors}
    outcomes, item_set = _outcomes(raw, value, where)
    tried = _tried(raw, where)
    return Row(metric, value, task, seed, low, high, n, factors, outcomes, item_set, tried)


def _tried(raw: Mapping[str, Any], where: str) -> dict[float, float]:
    """Return the validation loss of each learning rate that was tried, if the row has any."""
    tried = raw.get("tried", {})
    try:
        losses = {float(rate): float(loss) for rate, loss in tried.items()}
    except (AttributeError, TypeError, ValueError):
        losses = {math.nan: math.nan}
    if not all(math.isfinite(number) for pair in losses.items() for number in pair):
        raise DataError(f"{where}: tried: expected losses by learning rate, got {tried!r}")
    return losses


def _outcomes(
    raw: Mapping[str, Any], value: float | None, where: str
) -> tuple[tuple[float, ...], str]:
    """Return the outcome of each item and the set's digest, which older rows do not have."""
    text, item_set = raw.get("items"), raw.get("item_set", "")
    if text is None or value is None:
        return (), ""
    if not isinstance(text, str) or not isinstance(item_set, str) or not item_set:
        raise DataError(f"{where}: items, item_set: expected two texts, got {text!r}, {item_set!r}")
    outcomes = items.decode(text, where)
    mean = math.fsum(outcomes) / len(outcomes)
    if abs(mean - value) > items.ROUNDING * max(1.0, abs(value)):
        raise DataError(f"{where}: value {value!r} is not the mean of its items, {mean:.6g}")
    return outcomes, item_set


def _number(raw: Mapping[str, Any], key: str, where: str) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"{where}: {key}: expected a finite number or null, got {value!r}")
    return float(value)


def _factor(raw: Mapping[str, Any], name: str, spec: Spec, where: str) -> Level:
    factor, value = spec.factors[name], raw.get(name)
    if value is None:
        if factor.optional:
            return None
        raise DataError(f"{where}: {name}: missing; this experiment varies it, so each row has one")
    if factor.names and value not in factor.names:
        raise DataError(f"{where}: " + unknown(name, str(value), factor.names))
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {name}: expected a name or a number, got {value!r}")
    return value


def _distinct(rows: tuple[Row, ...], path: Path) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows, start=1):
        key = (row.metric, row.task, row.seed, *row.factors.items())
        if key in seen:
            raise DataError(
                f"{path}: row {number}: the same {row.metric} of {row.task or 'no task'} as row "
                f"{seen[key]}, seed {row.seed}; one number for each metric, task, seed and factors"
            )
        seen[key] = number
