"""Evaluation of several adapters of one base model on the same examples, with a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.adapters.adapter import Adapter
from lori_core.core.files.atomic import write_json
from lori_core.data.example import Example
from lori_core.evaluation.evaluate import evaluate
from lori_core.evaluation.statistics import is_share, mean_interval
from lori_core.methods.loaded_model import LoadedModel


def evaluate_all(
    session: LoadedModel,
    rows: Mapping[str, Adapter | None],
    sets: Mapping[str, Sequence[Example]],
    out: Path,
    say: Callable[[str], None],
    *,
    average: bool = False,
) -> dict[str, Any]:
    """Score models on the same examples and write `results.json` after each of them.

    Args:
        session: the loaded base model, shared by all rows.
        rows: the adapters by name; None for the base model alone.
        sets: the examples by task.
        out: the folder for `results.json` and the outputs.
        say: a function that prints one line of the table.
        average: whether the adapters differ only in their seed; then a row with their mean and
            its interval over the seeds is added.

    Returns:
        `{"scores": {row: {task: …}}, "seconds": {row: …}}`.
    """
    results: dict[str, Any] = {"scores": {}, "seconds": {}}
    for row, adapter in rows.items():
        started = time.monotonic()
        results["scores"][row] = evaluate(session, adapter, sets, row, out)
        results["seconds"][row] = round(time.monotonic() - started, 2)
        write_json(out / "results.json", results)
    if average:
        seeds = {row: results["scores"][row] for row, adapter in rows.items() if adapter}
        results["scores"][f"mean of {len(seeds)}"] = average_of(list(seeds.values()))
        write_json(out / "results.json", results)
    for line in table(results):
        say(line)
    return results


def average_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean score by task of runs that differ in their seed, with its 95 % interval.

    A task that no run has a score for has null and n 0; the mean of one score has no interval.
    """
    tasks = dict.fromkeys(task for run in runs for task in run)
    return {task: _average([run[task] for run in runs if task in run]) for task in tasks}


def _average(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scored = [result for result in results if result["score"] is not None]
    scores = [result["score"] for result in scored]
    low, high = mean_interval(scores) if len(scores) > 1 else (None, None)
    facts: dict[str, Any] = {"share": results[0]["share"]} if "share" in results[0] else {}
    if low is not None and high is not None and all(map(is_share, scored)):
        low, high = max(0.0, low), min(1.0, high)
    return {
        "metric": results[0]["metric"],
        "score": fmean(scores) if scores else None,
        "low": low,
        "high": high,
        "n": scored[0]["n"] if scored else 0,
        "seeds": len(scores),
        **facts,
    }


def flat(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores and interval ends that are not None as `<row>.<score|low|high>.<task>`."""
    return {
        f"{row}.{key}.{task}": result[key]
        for row, by_task in results["scores"].items()
        for task, result in by_task.items()
        for key in ("score", "low", "high")
        if result[key] is not None
    }


def table(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each task and model: score, interval and number of examples."""
    scores = results["scores"]
    tasks = dict.fromkeys(task for row in scores.values() for task in row)
    wide = max(len(row) for row in scores)
    lines = []
    for task in tasks:
        for row, by_task in scores.items():
            if task in by_task:
                lines += [f"{task:24} {row:{wide}}  {text}" for text in _texts(by_task[task])]
    return lines


def _texts(result: Mapping[str, Any]) -> list[str]:
    """Return the score as text, then the other metrics of the same examples."""
    parts = {str(result["metric"]): result}
    for name in ("likelihood", "paper_scoring", "paper", "judge", "over_refusal", "incoherent"):
        if result.get(name, {}).get("n"):
            parts[name.replace("_", "-")] = result[name]
    for name, scored in result.get("setups", {}).items():
        parts[f"setup {name}"] = scored
        if scored["over_refusal"]["n"]:
            parts[f"setup {name}, over-refusal"] = scored["over_refusal"]
    for k, score in result.get("pass_at", {}).items():
        if k != "1":
            parts[f"pass_at_{k}"] = score
    lines = [f"{name:14} {_score(score)}" for name, score in parts.items()]
    for metric, spread in result.get("spread", {}).items():
        lines.append(f"{metric.replace('_', '-'):14} {_spread(spread)}")
    return lines


def _spread(spread: Mapping[str, Any]) -> str:
    low, high = (f"{100 * spread[end]:.1f}" for end in ("low", "high"))
    return f"{low} ({spread['lowest']}) to {high} ({spread['highest']}) over {spread['n']} set-ups"


def _score(score: Mapping[str, Any]) -> str:
    if score["score"] is None:
        return f"{'-':>6}  (no example counts)"
    scale, digits = (100, 1) if is_share(score) else (1, 3)
    middle, low, high = (
        "" if score[key] is None else f"{scale * score[key]:.{digits}f}"
        for key in ("score", "low", "high")
    )
    interval = f"[{low}, {high}]" if low else ""
    return f"{middle:>6} {interval:16} of {score['n']}"
