"""Results of lm-evaluation-harness, with 95 % intervals."""

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
        metric: the harness's name, such as `acc_norm`.
        filter: the filter that extracts answers from outputs; `none` for whole outputs.
        value: the metric over all examples.
        stderr: the harness's standard error; None if it has none.
        low: lower end of the 95 % interval; None without scores of examples and without `stderr`.
        high: upper end.
        n: the number of examples.
        higher_is_better: as the task defines it.
        share: whether the score of each example is in [0, 1]; a perplexity, for one, is no share.
    """

    metric: str
    filter: str
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    higher_is_better: bool | None
    share: bool


@dataclass(frozen=True)
class TaskResult:
    """The results of one task, or of one group of tasks.

    Attributes:
        version: the task's version.
        shots: the number of few-shot examples.
        scores: the scores by metric and filter.
        samples: a JSON object for each example and filter, with the document, the requests, the
            model's answers and the metrics; empty for a group.
    """

    version: str
    shots: int
    scores: tuple[Score, ...]
    samples: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class HarnessResult:
    """The results of a run of the harness.

    Attributes:
        harness: the version of lm-eval.
        tasks: the results by task, in the harness's order.
        notes: the harness's warnings during the run (such as a truncated prompt), each kind once.
    """

    harness: str
    tasks: dict[str, TaskResult]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything except the samples as JSON values."""
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
    """Return the results by task and group.

    The interval of a mean of scores in [0, 1] is that of `bounded_mean`, exact for zeros and ones.
    Any other interval is `value ± 1.96 · stderr`, clipped to [0, 1] if all examples' scores are in
    [0, 1].

    Args:
        output: the return value of `lm_eval.simple_evaluate`, with `log_samples`.

    Raises:
        LoriError: a value is not finite.
    """
    samples = {name: tuple(map(_plain, rows)) for name, rows in output["samples"].items()}
    values = {
        name: {key: _values(rows, *key) for key in _keys(output["results"][name])}
        for name, rows in samples.items()
    }
    # A group has no examples: its metric is in [0, 1] if it is in [0, 1] in all tasks.
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
    """Return a sample as JSON values; NumPy's numbers become Python's."""
    text = json.dumps(row, default=lambda value: getattr(value, "tolist", value.__str__)())
    # JSON has no NaN; such a score becomes null.
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
    return Score(metric, cut, value, stderr, low, high, n, higher.get(metric), bounded)


def _interval(
    value: float, stderr: float | None, values: Sequence[Any], bounded: bool
) -> tuple[float | None, float | None]:
    """Return the 95 % interval: of a bounded mean if possible, otherwise of a normal one."""
    if values and _shares(values) and math.isclose(value, fmean(values)):
        return bounded_mean.interval(values, 0, 1)
    if stderr is None:
        return None, None
    low, high = value - _NORMAL_95 * stderr, value + _NORMAL_95 * stderr
    return (max(0.0, low), min(1.0, high)) if bounded else (low, high)
