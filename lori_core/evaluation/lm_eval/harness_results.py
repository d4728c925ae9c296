"""What lm-evaluation-harness found, with 95 % intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from lori_core.core.errors import LoriError
from lori_core.evaluation import bounded_mean

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Score:
    """One metric of one task.

    Attributes:
        metric: the harness's name, as in `acc_norm`.
        filter: how answers were cut out of what was generated; `none` for all of it.
        value: the metric over all examples.
        stderr: the harness's standard error; None where it gives none.
        low: lower end of the 95 % interval; None where there is neither a count nor a `stderr`.
        high: upper end.
        n: examples.
        higher_is_better: as the task says.
    """

    metric: str
    filter: str
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    higher_is_better: bool | None


@dataclass(frozen=True)
class TaskResult:
    """One task, or one group of tasks that the harness sums up.

    `samples` holds a plain JSON object for each example and filter: the document, the requests, the
    model's answers and the metrics. A group has none.
    """

    version: str
    shots: int
    scores: tuple[Score, ...]
    samples: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class HarnessResult:
    """What the harness found, by task, in its order.

    `notes` are what the harness warned of while it ran (a prompt cut to the model's length, for
    instance), each kind once.
    """

    harness: str
    tasks: dict[str, TaskResult]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all but the samples, as plain JSON."""
        tasks = {
            name: {
                "version": task.version,
                "shots": task.shots,
                "scores": [asdict(score) for score in task.scores],
            }
            for name, task in self.tasks.items()
        }
        return {"harness": self.harness, "tasks": tasks, "notes": list(self.notes)}


def task_results(output: Mapping[str, Any]) -> dict[str, TaskResult]:
    """Return what `lm_eval.simple_evaluate` returned, with `log_samples`, by task and group.

    The mean of scores from 0 to 1 gets the interval of `bounded_mean`, exact for zeros and ones;
    any other value `value ± 1.96 · stderr`, cut to [0, 1] where every example's score lies there.
    """
    samples = {name: tuple(map(_plain, rows)) for name, rows in output["samples"].items()}
    values = {
        name: {key: _values(rows, *key) for key in _keys(output["results"][name])}
        for name, rows in samples.items()
    }
    # A group has no examples of its own: its metric is a share if it is one in every task.
    unbounded = {
        key for task in values.values() for key, scores in task.items() if not _shares(scores)
    }
    results = {}
    for name, row in output["results"].items():
        higher = output["higher_is_better"].get(name, {})
        own = values.get(name, {})
        scores = tuple(
            _score(row, key, own.get(key, []), key not in unbounded, higher) for key in _keys(row)
        )
        if scores:
            results[name] = TaskResult(
                version=str(output["versions"].get(name)),
                shots=int(output["n-shot"].get(name, 0)),
                scores=scores,
                samples=samples.get(name, ()),
            )
    return results


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample as plain JSON; NumPy's numbers become Python's."""
    text = json.dumps(row, default=lambda value: getattr(value, "tolist", value.__str__)())
    # JSON has no NaN: a score that is none is null.
    plain: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return plain


def _keys(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (metric, filter) of each value in a row of results: its keys are `acc,none`."""
    parts = [key.partition(",") for key in row]
    return [(name, cut) for name, comma, cut in parts if comma and not name.endswith("_stderr")]


def _values(rows: Sequence[Mapping[str, Any]], metric: str, cut: str) -> list[Any]:
    return [row[metric] for row in rows if row["filter"] == cut and metric in row]


def _shares(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values)


def _score(
    row: Mapping[str, Any],
    key: tuple[str, str],
    values: Sequence[Any],
    bounded: bool,
    higher: Mapping[str, bool | None],
) -> Score:
    metric, cut = key
    value, stderr = float(row[f"{metric},{cut}"]), row.get(f"{metric}_stderr,{cut}")
    stderr = None if stderr in (None, "N/A") else float(stderr)
    if not math.isfinite(value):
        raise LoriError(
            f"lm-eval: {metric} is {value}: the model's outputs are no finite numbers; use "
            "model.dtype float32"
        )
    if stderr is not None and not math.isfinite(stderr):
        stderr = None
    low, high = _interval(value, stderr, values, bounded)
    n = len(values) or int(row["sample_len"])
    return Score(metric, cut, value, stderr, low, high, n, higher.get(metric))


def _interval(
    value: float, stderr: float | None, values: Sequence[Any], bounded: bool
) -> tuple[float | None, float | None]:
    """Return the 95 % interval: that of a bounded mean where it is one, else the normal one."""
    if values and _shares(values) and math.isclose(value, fmean(values)):
        return bounded_mean.interval(values, 0, 1)
    if stderr is None:
        return None, None
    low, high = value - _NORMAL_95 * stderr, value + _NORMAL_95 * stderr
    return (max(0.0, low), min(1.0, high)) if bounded else (low, high)
