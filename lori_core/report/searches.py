"""The searches for merge weights in the report: candidates, choice and Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.core.files.atomic import read_json

#: The measured rule on the front's other axis; without it, the least share of gain kept.
SAFETY = "refusal"


def collect(merges: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return the result of each merge's search, for merges whose weights were searched."""
    paths = {name: folder / f"{name}.json" for name in merges}
    by_merge = {name: read_json(path) for name, path in paths.items() if path.is_file()}
    return {name: facts for name, facts in by_merge.items() if facts.get("searched")}


def sentences(searches: Mapping[str, Any]) -> list[str]:
    """Return how each merge's weights were chosen, in one sentence."""
    return [f"Weights of the merge {name}: {facts['sentence']}" for name, facts in searches.items()]


def table(searches: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for each measured candidate."""
    rows = []
    for name, facts in searches.items():
        for number, candidate in enumerate(facts["candidates"], start=1):
            kept = candidate["retained"]
            least = min(kept, key=lambda task: kept[task])
            rows.append(
                [
                    f"{name}, {number}: {candidate['name']}"
                    + (" (chosen)" if number == facts["chosen"] + 1 else ""),
                    _weights(candidate["weights"]["weights"]),
                    f"{100 * mean_retained(candidate):.0f}",
                    f"{100 * kept[least]:.0f} ({least})",
                    _percent(candidate["rules"], SAFETY),
                    _percent(candidate["rules"], "over_refusal"),
                    ", ".join(candidate["violations"]) or "none",
                ]
            )
    columns = ["candidate", "weights", "retained, mean", "least", "refusal", "over-refusal"]
    title = "Search for merge weights, on validation examples (percent)"
    return {"name": "search", "title": title, "columns": [*columns, "rules missed"], "rows": rows}


def points(facts: Mapping[str, Any]) -> tuple[str, list[tuple[float, float]]]:
    """Return the name of the second axis, and (mean retained, its value) of each candidate."""
    candidates = facts["candidates"]
    if all(SAFETY in candidate["rules"] for candidate in candidates):
        return "refusal of harmful requests, %", [
            (100 * mean_retained(c), 100 * c["rules"][SAFETY]) for c in candidates
        ]
    least = [(100 * mean_retained(c), 100 * min(c["retained"].values())) for c in candidates]
    return "least gain retained by a task, %", least


def front(candidates: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other point beats on both axes, left to right."""
    best = [
        index
        for index, (x, y) in enumerate(candidates)
        if not any(
            (a >= x and b >= y) and (a > x or b > y)
            for other, (a, b) in enumerate(candidates)
            if other != index
        )
    ]
    return sorted(best, key=lambda index: candidates[index])


def mean_retained(candidate: Mapping[str, Any]) -> float:
    """Return the mean share of the tasks' gains that a candidate keeps."""
    return fmean(candidate["retained"].values())


def chosen_weights(facts: Mapping[str, Any]) -> str:
    """Return the mean weight of each task in the chosen candidate, as text."""
    return _weights(facts["candidates"][facts["chosen"]]["weights"]["weights"])


def _weights(by_task: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{task} {fmean(groups.values()):.2f}" for task, groups in by_task.items())


def _percent(rules: Mapping[str, float], name: str) -> str:
    return f"{100 * rules[name]:.0f}" if name in rules else "-"
