"""Merge weights by task, by task and layer, or by task, layer and projection, and their file.

A group is a set of modules that share one weight of each task. The file of searched weights is a
small JSON object: `by`, `weights` (by task, then by group), and `density` if it was searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lori_core.adapters.masks.mask_choices import layer_of
from lori_core.core.errors import DataError
from lori_core.core.files.atomic import read_object, write_json

By = Literal["task", "layer", "projection"]
#: The only group of the weights by task.
ALL = "all"
#: Decimals of a weight in the file.
DIGITS = 4


def group_of(module: str, by: By) -> str:
    """Return the group of a module: `all`, its layer's number, or its own name."""
    return {"task": ALL, "layer": layer_of(module), "projection": module}[by]


def groups_of(modules: Iterable[str], by: By) -> list[str]:
    """Return the groups of some modules, each once, in the modules' order."""
    return list(dict.fromkeys(group_of(module, by) for module in modules))


@dataclass(frozen=True)
class MergeWeights:
    """The weights of a merge.

    Attributes:
        by: what a group of modules is.
        weights: by task, then by group.
        density: the searched density of a method that has one; None to keep the merge's own.
    """

    by: By
    weights: Mapping[str, Mapping[str, float]]
    density: float | None = None

    @classmethod
    def by_task(cls, weights: Mapping[str, float], density: float | None = None) -> MergeWeights:
        """Return weights by task: the same for all modules."""
        return cls("task", {task: {ALL: weight} for task, weight in weights.items()}, density)

    def of_modules(self, task: str, modules: Iterable[str]) -> dict[str, float]:
        """Return a task's weight for each module.

        Raises:
            DataError: the task or a module's group has no weight.
        """
        groups = self.weights.get(task, {})
        result = {}
        for module in modules:
            group = group_of(module, self.by)
            if group not in groups:
                raise DataError(f"the searched weights have none for {task} in {module}")
            result[module] = groups[group]
        return result

    def mean(self, task: str) -> float:
        """Return the mean of a task's weights over its groups."""
        values = self.weights[task].values()
        return sum(values) / len(values)

    def rounded(self) -> MergeWeights:
        """Return the weights with `DIGITS` decimals, as the file holds them."""
        rounded = {
            task: {group: round(value, DIGITS) for group, value in groups.items()}
            for task, groups in self.weights.items()
        }
        density = None if self.density is None else round(self.density, DIGITS)
        return MergeWeights(self.by, rounded, density)

    def write(self, path: Path) -> None:
        """Write the file."""
        more = {} if self.density is None else {"density": self.density}
        write_json(path, {"by": self.by, "weights": self.weights, **more})

    @classmethod
    def read(cls, path: Path) -> MergeWeights:
        """Read the file.

        Raises:
            DataError: it is missing or is not such a file.
        """
        values = read_object(path)
        by: Any = values.get("by")
        weights: Any = values.get("weights")
        if by not in ("task", "layer", "projection") or not _are_weights(weights):
            raise DataError(f"{path}: no searched weights of a merge; run its search again")
        return cls(by, weights, values.get("density"))


def between(inner: MergeWeights, outer: MergeWeights, share: float) -> MergeWeights:
    """Return inner + share · (outer − inner), by the groups of `outer`.

    Args:
        inner: weights by task, or by the groups of `outer`.
        outer: the other end; gives the groups and the density.
        share: 0 for `inner`, 1 for `outer`.
    """
    weights = {}
    for task, groups in outer.weights.items():
        own = inner.weights[task]
        starts = {group: own[group] if group in own else own[ALL] for group in groups}
        weights[task] = {g: start + share * (groups[g] - start) for g, start in starts.items()}
    return MergeWeights(outer.by, weights, outer.density)


def _are_weights(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(groups, dict) and bool(groups) for groups in value.values())
        and all(type(w) in (int, float) for groups in value.values() for w in groups.values())
    )
