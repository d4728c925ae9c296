"""Which entries of B are trained: the top `1 - sparsity` by importance, exactly.

All B of a model are seen as one long vector: modules in the model's order, each `[d_out, rank]`
row by row. A mask is a packed bit for each position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lori_core.errors import AdapterError, InputError, unknown

#: A module's name -> shape of its B, (d_out, rank), in the model's order.
Shapes = dict[str, tuple[int, int]]
SCOPES = ("model", "module", "projection", "layer", "matrix")

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


def layer_of(module: str) -> str:
    """Return the layer's number in a module's name, or `-` for a module outside the layers."""
    numbers: list[str] = re.findall(r"\.(\d+)\.", f".{module}.")
    return numbers[0] if numbers else "-"


def projection_of(module: str) -> str:
    """Return the projection's own name: the last part (`q_proj`)."""
    return module.rsplit(".", 1)[-1]


def block_of(module: str) -> str:
    """Return `attention` or `mlp`, after the folder names a module stands in."""
    return "attention" if _ATTENTION.search(module) else "mlp"


def scope_of(scope: str, module: str) -> str:
    """Return the group of modules inside which this module's entries compete (METHOD, section 2).

    Raises:
        InputError: for a scope that does not exist.
    """
    if scope not in SCOPES:
        raise InputError(unknown("mask scope", scope, SCOPES))
    groups = {
        "model": "model",
        "module": block_of(module),
        "projection": projection_of(module),
        "layer": layer_of(module),
        "matrix": module,
    }
    return groups[scope]


def kept_count(total: int, sparsity: Decimal) -> int:
    """Return N - ⌊s·N⌋ in exact decimal arithmetic.

    Raises:
        InputError: for a sparsity outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity {sparsity} is outside [0, 1)")
    return total - int((sparsity * total).to_integral_value(ROUND_FLOOR))


@dataclass(frozen=True)
class Mask:
    """A bit for each entry of B, over all modules.

    Attributes:
        shapes: the modules and their B's shapes, in order.
        bits: packed bits, uint8, [⌈N/8⌉], the first position in the highest bit.
    """

    shapes: Shapes
    bits: np.ndarray

    @cached_property
    def total(self) -> int:
        """The number of entries, N."""
        return sum(rows * columns for rows, columns in self.shapes.values())

    @cached_property
    def flat(self) -> np.ndarray:
        """The mask as booleans, [N]."""
        return np.unpackbits(self.bits, count=self.total).view(bool)

    @cached_property
    def count(self) -> int:
        """How many entries are kept."""
        return int(np.bitwise_count(self.bits).sum(dtype=np.int64))

    @property
    def sparsity(self) -> float:
        """The share of entries that are masked out."""
        return 1 - self.count / self.total

    @classmethod
    def from_flat(cls, shapes: Shapes, flat: np.ndarray) -> Mask:
        """Pack booleans, [N]."""
        return cls(shapes, np.packbits(flat))

    def check_shapes(self, shapes: Shapes, what: str) -> None:
        """Refuse to be used with B's of other modules or shapes."""
        if self.shapes == shapes:
            return
        for name in [*self.shapes, *shapes]:
            mine, theirs = self.shapes.get(name), shapes.get(name)
            if mine != theirs:
                raise AdapterError(f"{what}: module {name}: mask has {mine}, model has {theirs}")
        raise AdapterError(f"{what}: the mask's modules stand in another order than the model's")

    def positions(self) -> dict[str, Tensor]:
        """Return the kept positions of each module: flat indices into [d_out · rank], int64."""
        found, start = {}, 0
        for name, (rows, columns) in self.shapes.items():
            stop = start + rows * columns
            found[name] = torch.from_numpy(np.flatnonzero(self.flat[start:stop]))
            start = stop
        return found

    def kept_by(self, group: str) -> dict[str, float]:
        """Return the kept share for each layer, projection, … (a scope's name)."""
        kept: dict[str, int] = {}
        total: dict[str, int] = {}
        start = 0
        for name, (rows, columns) in self.shapes.items():
            key = scope_of(group, name)
            stop = start + rows * columns
            kept[key] = kept.get(key, 0) + int(self.flat[start:stop].sum())
            total[key] = total.get(key, 0) + rows * columns
            start = stop
        return {key: kept[key] / total[key] for key in kept}


def shapes_of(matrices: Mapping[str, Tensor]) -> Shapes:
    """Return the shapes of B's by module."""
    return {name: (int(b.shape[0]), int(b.shape[1])) for name, b in matrices.items()}


def magnitude(B: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |B|, [d_out, rank], by module: the paper's importance (eq. 2)."""
    return {name: b.abs() for name, b in B.items()}


def top(scores: Mapping[str, Tensor], sparsity: Decimal, scope: str) -> tuple[Mask, float]:
    """Keep the `N - ⌊s·N⌋` most important entries inside each group of a scope (eq. 2).

    Ties are broken by position, the first wins, so counts are exact and the mask is a function of
    the scores alone.

    Args:
        scores: importance of each entry, [d_out, rank], not negative, by module.
        sparsity: the share to mask out, in [0, 1).
        scope: one of `SCOPES`.

    Returns:
        The mask, and the smallest importance that was kept (τ).

    Raises:
        InputError: for a scope or sparsity that does not exist, or scores that are not numbers.
    """
    shapes = shapes_of(scores)
    flat = np.concatenate([s.detach().float().reshape(-1).numpy() for s in scores.values()])
    if not np.isfinite(flat).all():
        raise InputError("importance scores hold values that are not finite numbers")
    groups: dict[str, list[slice]] = {}
    start = 0
    for name, (rows, columns) in shapes.items():
        stop = start + rows * columns
        groups.setdefault(scope_of(scope, name), []).append(slice(start, stop))
        start = stop
    kept = np.zeros(flat.size, dtype=bool)
    threshold = float("inf")
    for parts in groups.values():
        where = np.concatenate([np.arange(part.start, part.stop) for part in parts])
        values = flat[where]
        chosen = _top_of(values, kept_count(values.size, sparsity))
        kept[where[chosen]] = True
        threshold = min(threshold, float(values[chosen].min()))
    return Mask.from_flat(shapes, kept), threshold


def _top_of(values: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the `count` largest values, the first of equal ones."""
    bound = np.partition(values, values.size - count)[values.size - count]
    above = np.flatnonzero(values > bound)
    equal = np.flatnonzero(values == bound)[: count - above.size]
    chosen: np.ndarray = np.concatenate([above, equal])
    return chosen


def overlap(first: Mask, second: Mask) -> float:
    """Return the share of all entries that both masks keep; (1 - s)² if they were independent."""
    second.check_shapes(first.shapes, "mask overlap")
    both = int(np.bitwise_count(first.bits & second.bits).sum(dtype=np.int64))
    return both / first.total


def union(first: Mask, second: Mask) -> Mask:
    """Return the mask of entries that either keeps."""
    second.check_shapes(first.shapes, "mask union")
    return Mask(first.shapes, first.bits | second.bits)
