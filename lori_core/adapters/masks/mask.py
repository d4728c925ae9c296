"""Which entries of B are trained: the top `1 - sparsity` by importance, exactly.

All B of a model are seen as one long vector: modules in the model's order, each `[d_out, rank]`
row by row. A mask is a packed bit for each position. Neither that vector nor its booleans are ever
held as a whole: modules and chunks of them are looked at in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from functools import cached_property
from itertools import accumulate, chain

import numpy as np
import torch
from torch import Tensor

from lori_core.adapters.masks.mask_choices import SCOPES
from lori_core.core.errors import AdapterError, InputError, unknown

#: A module's name -> shape of its B, (d_out, rank), in the model's order.
Shapes = dict[str, tuple[int, int]]

#: Values looked at together: few enough to stay in the processor's cache.
_CHUNK = 1 << 18


def scope_of(scope: str, module: str) -> str:
    """Return the group of modules inside which this module's entries compete (METHOD, section 2).

    Raises:
        InputError: for a scope that does not exist.
    """
    if scope not in SCOPES:
        raise InputError(unknown("mask scope", scope, SCOPES))
    return SCOPES[scope].group(module)


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
        return _total(self.shapes)

    @cached_property
    def starts(self) -> dict[str, int]:
        """Where each module's entries begin."""
        ends = accumulate(rows * columns for rows, columns in self.shapes.values())
        return dict(zip(self.shapes, chain([0], ends), strict=False))

    @cached_property
    def flat(self) -> np.ndarray:
        """The whole mask as booleans, [N]: eight times the packed bits; `of` is enough mostly."""
        return np.unpackbits(self.bits, count=self.total).view(bool)

    @cached_property
    def count(self) -> int:
        """How many entries are kept."""
        return int(np.bitwise_count(self.bits).sum(dtype=np.int64))

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many entries of each module are kept."""
        return {name: int(np.count_nonzero(self.of(name))) for name in self.shapes}

    @property
    def sparsity(self) -> float:
        """The share of entries that are masked out."""
        return 1 - self.count / self.total

    @classmethod
    def from_flat(cls, shapes: Shapes, flat: np.ndarray) -> Mask:
        """Pack booleans, [N]."""
        return cls(shapes, np.packbits(flat))

    @classmethod
    def from_parts(cls, shapes: Shapes, parts: Iterable[np.ndarray]) -> Mask:
        """Pack the booleans of one module after the other, [d_out · rank] or [d_out, rank].

        Raises:
            ValueError: if there are more or fewer parts than modules, or one has another size.
        """
        return cls(shapes, _packed(_total(shapes), _checked(shapes, parts)))

    def of(self, module: str) -> np.ndarray:
        """Return one module's booleans, [d_out · rank]."""
        start, (rows, columns) = self.starts[module], self.shapes[module]
        first, lead = divmod(start, 8)
        stop = start + rows * columns
        return np.unpackbits(self.bits[first : -(-stop // 8)])[lead : stop - 8 * first].view(bool)

    def check_shapes(self, shapes: Shapes, what: str) -> None:
        """Refuse to be used with B's of other modules or shapes, or in another order."""
        if list(self.shapes.items()) == list(shapes.items()):
            return
        for name in [*self.shapes, *shapes]:
            mine, theirs = self.shapes.get(name), shapes.get(name)
            if mine != theirs:
                raise AdapterError(f"{what}: module {name}: mask has {mine}, model has {theirs}")
        raise AdapterError(f"{what}: the mask's modules stand in another order than the model's")

    def positions(self) -> dict[str, Tensor]:
        """Return the kept positions of each module: flat indices into [d_out · rank], int64."""
        return {name: torch.from_numpy(np.flatnonzero(self.of(name))) for name in self.shapes}

    def kept_by(self, group: str) -> dict[str, float]:
        """Return the kept share for each layer, projection, … (a scope's name)."""
        kept: dict[str, int] = {}
        total: dict[str, int] = {}
        for name, (rows, columns) in self.shapes.items():
            key = scope_of(group, name)
            kept[key] = kept.get(key, 0) + self.counts[name]
            total[key] = total.get(key, 0) + rows * columns
        return {key: kept[key] / total[key] for key in kept}


def _total(shapes: Shapes) -> int:
    return sum(rows * columns for rows, columns in shapes.values())


def _checked(shapes: Shapes, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for (name, (rows, columns)), part in zip(shapes.items(), parts, strict=True):
        if part.size != rows * columns:
            raise ValueError(f"{name}: {part.size} booleans for a B of [{rows}, {columns}]")
        yield part.reshape(-1)


def _packed(total: int, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the packed bits of booleans that come in pieces of any length, [⌈total/8⌉]."""
    bits = np.zeros(-(-total // 8), dtype=np.uint8)
    position = 0
    for part in parts:
        first, lead = divmod(position, 8)
        position += part.size
        shifted = np.concatenate([np.zeros(lead, dtype=bool), part]) if lead else part
        bits[first : -(-position // 8)] |= np.packbits(shifted)
    return bits


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
        scope: a name of `mask_choices.SCOPES`.

    Returns:
        The mask, and the smallest importance that was kept (τ).

    Raises:
        InputError: for a scope or sparsity that does not exist, or scores that are negative, not
            finite or none at all.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, matrix in scores.items():
        groups.setdefault(scope_of(scope, name), {})[name] = matrix
    if not all(matrix.numel() for matrix in scores.values()) or not groups:
        raise InputError("importance scores are empty; each module needs at least one")
    bounds = {group: _bound(matrices, sparsity) for group, matrices in groups.items()}
    kept = (
        bounds[scope_of(scope, name)].keep(values)
        for name, matrix in scores.items()
        for values in _ordered(matrix)
    )
    shapes = shapes_of(scores)
    mask = Mask(shapes, _packed(_total(shapes), kept))
    return mask, min(bound.value for bound in bounds.values())


@dataclass
class _Bound:
    """What a group keeps: the entries above a value, and the first few equal to it.

    Attributes:
        digits: the value, as `_ordered` gives it.
        ties: how many of the equal entries are still to be kept.
    """

    digits: int
    ties: int

    @property
    def value(self) -> float:
        return float(np.uint32(self.digits).view(np.float32))

    def keep(self, values: np.ndarray) -> np.ndarray:
        """Return which of the group's next entries are kept."""
        kept: np.ndarray = values > self.digits
        if self.ties:
            equal = np.flatnonzero(values == self.digits)[: self.ties]
            kept[equal] = True
            self.ties -= equal.size
        return kept


def _ordered(matrix: Tensor) -> Iterator[np.ndarray]:
    """Yield a matrix's chunks as the uint32 that float32 are made of.

    Those of numbers that are not negative stand in the numbers' own order (IEEE 754: the exponent
    is above the mantissa), so that a histogram of their digits finds the exact k-th largest.
    """
    for chunk in matrix.detach().reshape(-1).split(_CHUNK):
        # Not torch's addition: on a busy machine its threads wait for each other at every chunk.
        with np.errstate(invalid="ignore"):  # what is no number is refused by its digits
            values = chunk.float().cpu().numpy() + np.float32(0)  # -0.0 becomes 0.0
        yield values.view(np.uint32)


def _bound(matrices: Mapping[str, Tensor], sparsity: Decimal) -> _Bound:
    """Return what an entry must reach for exactly `N - ⌊s·N⌋` of all to be kept."""
    count = kept_count(sum(matrix.numel() for matrix in matrices.values()), sparsity)
    upper = np.zeros(1 << 16, dtype=np.int64)
    for name, matrix in matrices.items():
        found = _histogram(values >> 16 for values in _ordered(matrix))
        _check_scores(name, found)
        upper += found
    high, count = _holding(upper, count)
    lower = _histogram(
        values[values >> 16 == high] & 0xFFFF
        for matrix in matrices.values()
        for values in _ordered(matrix)
    )
    low, count = _holding(lower, count)
    return _Bound(high << 16 | low, count)


def _histogram(digits: Iterable[np.ndarray]) -> np.ndarray:
    """Count 16-bit digits that come in pieces, int64, [65536]."""
    found = np.zeros(1 << 16, dtype=np.int64)
    for piece in digits:
        found += np.bincount(piece, minlength=found.size)
    return found


def _holding(histogram: np.ndarray, count: int) -> tuple[int, int]:
    """Return the digit of the `count`-th largest entry, and its rank among those with the digit."""
    at_least = histogram[::-1].cumsum()[::-1]
    digit = int(np.flatnonzero(at_least >= count)[-1])
    return digit, count - int(at_least[digit] - histogram[digit])


def _check_scores(module: str, upper: np.ndarray) -> None:
    """Refuse what is no importance, by its sign and exponent."""
    if upper[0x7F80:0x8000].any() or upper[0xFF80:].any():
        raise InputError(f"importance scores of {module} hold values that are not finite numbers")
    if upper[0x8000:].any():
        raise InputError(f"importance scores of {module} hold values below zero; give |B|, say")


def overlap(first: Mask, second: Mask) -> float:
    """Return the share of all entries that both masks keep; (1 - s)² if they were independent."""
    second.check_shapes(first.shapes, "mask overlap")
    both = int(np.bitwise_count(first.bits & second.bits).sum(dtype=np.int64))
    return both / first.total


def union(first: Mask, second: Mask) -> Mask:
    """Return the mask of entries that either keeps."""
    second.check_shapes(first.shapes, "mask union")
    return Mask(first.shapes, first.bits | second.bits)
