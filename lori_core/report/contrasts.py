"""Paired comparisons of a run's models: each with the base model, some with the task's adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lori_core.evaluation.paired_comparison import Rows, compare
from lori_core.evaluation.rows import ADAPTER

#: The level of p below which a difference is marked, without correction for several comparisons.
LEVEL = 0.05
OVER_REFUSAL = "over_refusal"


def collect(rows: Sequence[Mapping[str, Any]], evaluations: Path) -> list[dict[str, Any]]:
    """Compare the models of a summary on the same items.

    Every model is compared with the base model on each task for which both have a score; merged
    and continual adapters are also compared with the task's own adapter.

    Args:
        rows: the models, with `role`, `model`, and by task `scores` and `files` (paths of the
            verdicts).
        evaluations: the folder of these paths; a model without a folder there is not compared.

    Returns:
        For each comparison `model`, `against`, `task`, `measure` and the fields of `Comparison`.

    Raises:
        DataError: as `compare`; or a file of a model is missing while its folder exists.
    """
    by_role = {row["role"]: row for row in rows}
    comparisons: list[dict[str, Any]] = []
    for row in rows:
        references = ["base"] if row["role"] != "base" else []
        references += [ADAPTER] if row["role"] in ("merge", "continual") else []
        for role in references:
            comparisons += _pair(row, by_role[role], evaluations)
    return comparisons


def _pair(
    row: Mapping[str, Any], reference: Mapping[str, Any], evaluations: Path
) -> Iterator[dict[str, Any]]:
    for task in row["files"]:
        if task not in reference["files"]:
            continue
        paths = [evaluations / side["files"][task] for side in (row, reference)]
        if not all(path.parent.is_dir() for path in paths):
            continue
        for measure, rows in _measures(row["scores"][task], reference["scores"][task]):
            facts = asdict(compare(paths[0], paths[1], rows))
            named = {"model": row["model"], "against": reference["model"], "task": task}
            yield {**named, "measure": measure, **facts}


def _measures(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    """Yield the measures for which both models have a score, each with its rows."""
    if ours["n"] and theirs["n"]:
        yield ours["metric"], "refuse" if ours["metric"] == "refusal_rate" else "all"
    if all(side.get(OVER_REFUSAL, {}).get("n") for side in (ours, theirs)):
        yield OVER_REFUSAL, "comply"


def find(
    comparisons: Sequence[Mapping[str, Any]],
    model: str,
    against: str,
    task: str,
    *,
    over_refusal: bool = False,
) -> Mapping[str, Any] | None:
    """Return the comparison of a task's score, or of its over-refusal; None if there is none."""
    for item in comparisons:
        named = (item["model"], item["against"], item["task"]) == (model, against, task)
        if named and (item["measure"] == OVER_REFUSAL) == over_refusal:
            return item
    return None


def differs(comparison: Mapping[str, Any] | None) -> bool:
    """Return whether there is a comparison with p below `LEVEL`."""
    return comparison is not None and comparison["p"] < LEVEL
