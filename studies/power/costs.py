"""The forecast cost of a claim's points: for the first seed, for each seed, for each item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lori_core.config import Params
from lori_core.cost import Device, Model, Splits
from studies.analysis.verdicts import Part
from studies.builder import Builder
from studies.catalogue import EXPERIMENTS
from studies.points import Cell, Score, Train
from studies.power.forecast import training_seconds


@dataclass(frozen=True)
class Cost:
    """The seconds of an experiment's points on one device, one after another.

    Attributes:
        once: the learning rates that are tried with the first seed.
        seed: each seed's training, and the start of its scoring.
        item: each seed's scoring for each item of every task.
    """

    once: float
    seed: float
    item: float

    def seconds(self, seeds: int, items: int) -> float:
        """Return the seconds of a number of seeds and of items of each task."""
        return self.once + seeds * (self.seed + items * self.item)


class Costs:
    """Forecasts of the costs of claims.

    Args:
        params: the run that would repeat the experiments.
        splits: the sizes of each task's splits.
        device: the device.
    """

    def __init__(self, params: Params, splits: Splits, device: Device) -> None:
        first = params.experiments.seeds[:1]
        section = params.experiments.model_copy(update={"seeds": first})
        self.params = params.model_copy(update={"experiments": section})
        self.splits = splits
        self.model = Model(params, splits, device)
        self._built: dict[str, tuple[Builder, list[Cell]]] = {}

    def of(self, experiment: str, parts: Iterable[Part]) -> Cost:
        """Return the cost of the points that the comparisons of a claim need."""
        if experiment not in self._built:
            builder = Builder(self.params)
            self._built[experiment] = (builder, EXPERIMENTS[experiment](builder))
        builder, cells = self._built[experiment]
        wanted = {
            cell.point for cell in cells if any(_needs(part, cell, builder) for part in parts)
        }
        points, tried = _closure(builder, wanted)
        once = sum(training_seconds(point, self.model) for point in tried)
        seed, item = 0.0, 0.0
        for point in points:
            if isinstance(point, Train):
                seed += training_seconds(point, self.model)
            elif isinstance(point, Score):
                seed += self._start() * len(point.models)
                each = sum(self._item(task, task in point.scored) for task in point.losses)
                item += each * len(point.models)
        return Cost(once, seed, item)

    def _start(self) -> float:
        return self.model.start_seconds

    def _item(self, task: str, generated: bool) -> float:
        """Return the seconds of one test item: its output if one is generated, else its loss."""
        count = max(1, self.splits[task]["test"].examples)
        if not generated:
            return self.model.losses(task) / count
        return max(0.0, self.model.scoring(task).seconds - self._start()) / count


def _needs(part: Part, cell: Cell, builder: Builder) -> bool:
    """Return whether a cell of an experiment has rows for one of a comparison's terms."""
    point = builder.points.by_name[cell.point]
    tasks = {where.get("task") for where in part.cells} - {None}
    measured = set(point.losses) if isinstance(point, Score) else set()
    if measured and tasks and not measured & tasks:
        return False
    return any(
        _matches({**where, **term}, cell.factors) for where in part.cells for _, term in part.terms
    )


def _matches(wanted: Mapping[str, Any], factors: Mapping[str, Any]) -> bool:
    """Return whether a cell's factors are the wanted levels; numbers of a pilot may be others."""
    return all(
        level in wanted[name] if isinstance(wanted[name], tuple) else level == wanted[name]
        for name, level in factors.items()
        if name in wanted and isinstance(level, str)
    )


def _closure(builder: Builder, names: Iterable[str]) -> tuple[list[Any], list[Any]]:
    """Return the points with their parents, and the trainings that only try learning rates."""
    points, tries = builder.points.by_name, set()
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        point = points[name]
        own = set(point.tries) if isinstance(point, Train) else set()
        tries |= own
        waiting += [parent for parent in point.parents if parent not in own]
    return [points[name] for name in sorted(seen)], [points[name] for name in sorted(tries)]
