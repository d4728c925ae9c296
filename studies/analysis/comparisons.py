"""The comparisons of the claims about methods, merges and continual learning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from studies.analysis.paired.differences import Cell, Difference
from studies.analysis.rows import Experiment
from studies.analysis.specs import MERGES, METHODS
from studies.analysis.verdicts import Cells, Compare, Condition, Part, above, contrasted


def methods(
    pairs: Iterable[tuple[str, str]],
    margin: float = 0.0,
    tasks: Sequence[str] | None = None,
    *,
    equivalence: bool = False,
) -> Compare:
    """Return a comparison of methods on single tasks; see `levels`."""
    return levels("method", METHODS, pairs, margin, tasks, equivalence=equivalence)


def levels(
    factor: str,
    names: Mapping[str, str],
    pairs: Iterable[tuple[str, str]],
    margin: float = 0.0,
    tasks: Sequence[str] | None = None,
    *,
    equivalence: bool = False,
) -> Compare:
    """Return a comparison of a factor's levels; a level that was not run has no result.

    Args:
        factor: the factor.
        names: the levels' names in labels.
        pairs: each first level is claimed to be above the second.
        margin: how far below it may be.
        tasks: the tasks to compare on; None for all.
        equivalence: whether the first may also be at most `margin` above.
    """

    def compare(experiment: Experiment, cells: Cells) -> list[Part]:
        return [
            above(
                experiment,
                cells.of(experiment, tasks),
                {factor: first},
                {factor: second},
                f"{names[first]} against {names[second]}",
                margin,
                equivalence=equivalence,
            )
            for first, second in pairs
        ]

    return compare


def fewer_parameters(experiment: Experiment, cells: Cells) -> list[Part]:
    """Return how many fewer values LoRI-S trains than LoRA, less 94.5 %."""
    counts = [experiment.estimate("trainable_parameters", method=m) for m in ("lori-s", "lora")]
    if counts[0] is None or counts[1] is None:
        return [Part("trainable parameters of LoRI-S and LoRA", None)]
    fewer = 100 * (1 - counts[0].value / counts[1].value)
    difference = Difference(fewer - 94.5, fewer - 94.5, fewer - 94.5, counts[0].seeds, "%", ())
    note = f"{counts[0].value:,.0f} against {counts[1].value:,.0f}, {fewer:.1f} % fewer"
    return [Part("LoRI-S against LoRA", difference, note=note)]


def merges(
    firsts: Sequence[tuple[str, str]],
    seconds: Sequence[tuple[str, str]] | None,
    *,
    margin: float = 0.0,
    tasks: Sequence[str] | None = None,
    apart: bool = False,
) -> Compare:
    """Return a comparison of merges (method, merge), each of `firsts` with each of `seconds`.

    Args:
        firsts: the merges that are claimed to be above.
        seconds: the merges to compare with; None for the same method's linear merge.
        margin: how far below the firsts may be.
        tasks: the tasks to compare on; None for all.
        apart: whether to compare each task by itself instead of the mean over tasks.
    """

    def compare(experiment: Experiment, cells: Cells) -> list[Part]:
        parts = []
        for first in firsts:
            for second in seconds if seconds is not None else [(first[0], "linear")]:
                for chosen in [[task] for task in tasks or ()] if apart else [tasks]:
                    where = cells.of(experiment, chosen)
                    label = f"{_named(first)} against {_named(second)}"
                    a, b = _setting(experiment, first), _setting(experiment, second)
                    parts.append(above(experiment, where, a, b, label, margin))
        return parts

    return compare


def _named(pair: tuple[str, str]) -> str:
    return f"{MERGES[pair[1]]} {METHODS[pair[0]]}"


def _setting(experiment: Experiment, pair: tuple[str, str]) -> Condition:
    """Return a merge as a condition, with the weight and density of its first row."""
    method, merge = pair
    rows = [r for r in experiment.rows if (r.factors["method"], r.factors["merge"]) == pair]
    setting = {key: rows[0].factors[key] for key in ("weight", "density")} if rows else {}
    return {"method": method, "merge": merge, **setting}


def _safety(experiment: Experiment, cells: Cells) -> list[Cell]:
    """Return a cell with the safety score for each task that was learned after safety."""
    base = next((c for c in cells.of(experiment, None) if c["task"] == "safety"), None)
    learned = [task for task in experiment.levels("learned") if task]
    return [{**base, "learned": task} for task in learned] if base else []


def forgets(experiment: Experiment, cells: Cells) -> list[Part]:
    """Compare LoRA's safety before learning with that after it."""
    where = _safety(experiment, cells)
    before, after = {"method": "lora", "learned": ""}, {"method": "lora"}
    return [above(experiment, where, before, after, "LoRA's safety before against after")]


def safest(method: str, others: Sequence[str]) -> Compare:
    """Return a comparison of the safety of methods after learning."""

    def compare(experiment: Experiment, cells: Cells) -> list[Part]:
        where = _safety(experiment, cells)
        return [
            above(
                experiment,
                where,
                {"method": method},
                {"method": other},
                f"{METHODS[method]} against {METHODS[other]} after learning",
            )
            for other in others
        ]

    return compare


def loses_least(experiment: Experiment, cells: Cells) -> list[Part]:
    """Compare the change of LoRI-S's safety with that of LoRA and of LoRI-D."""
    where, parts = _safety(experiment, cells), []
    for other in ("lora", "lori-d"):
        terms: list[tuple[float, Condition]] = [
            (1, {"method": "lori-s"}),
            (-1, {"method": "lori-s", "learned": ""}),
            (-1, {"method": other}),
            (1, {"method": other, "learned": ""}),
        ]
        label = f"Change of LoRI-S against that of {METHODS[other]}"
        parts.append(contrasted(experiment, where, terms, label))
    return parts


def learns(experiment: Experiment, cells: Cells) -> list[Part]:
    """Compare LoRI-D with LoRI-S on the learned tasks."""
    where = [
        {**cell, "learned": cell["task"]}
        for cell in cells.of(experiment, None)
        if cell["task"] != "safety"
    ]
    label = "LoRI-D against LoRI-S on the learned task"
    return [above(experiment, where, {"method": "lori-d"}, {"method": "lori-s"}, label)]
