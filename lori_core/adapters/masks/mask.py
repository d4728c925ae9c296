"""Masks over the entries of B, and their selection: exactly the top `1 - sparsity` by importance.

A mask treats all B matrices of a model as one vector: modules in the model's order, each
`[d_out, rank]` in row-major order. It stores one bit per entry. Neither that vector nor its
booleans are held in memory at once; modules and chunks of them are processed in turn.
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

#: A module's name -> the shape of its B, (d_out, rank), in the model's order.
Shapes = dict[str, tuple[int, int]]

#: Values per chunk: few enough to stay in the processor's cache.
_CHUNK = 1 << 18


def scope_of(scope: str, module: str) -> str:
    """Return the group of modules whose entries are ranked together with this module's.

    Raises:
        InputError: the scope is unknown.
    """
    if scope not in SCOPES:
        raise InputError(unknown("mask scope", scope, SCOPES))
    return SCOPES[scope].group(module)


def kept_count(total: int, sparsity: Decimal) -> int:
    """Return N - ⌊s·N⌋, the number of entries that a mask keeps, in exact decimal arithmetic.

    Raises:
        InputError: the sparsity is outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity {sparsity} is outside [0, 1)")
    return total - int((sparsity * total).to_integral_value(ROUND_FLOOR))


@dataclass(frozen=True)
class Mask:
    """One bit per entry of B, over all modules; 1 means that the entry is trained.

    Attributes:
        shapes: the modules and the shapes of their B, in order.
        bits: packed bits, uint8, [⌈N/8⌉], the first entry in the highest bit.
    """

    shapes: Shapes
    bits: np.ndarray

    @cached_property
    def total(self) -> int:
        """The number of entries, N."""
        return _total(self.shapes)

    @cached_property
    def starts(self) -> dict[str, int]:
        """The index of each module's first entry."""
        ends = accumulate(rows * columns for rows, columns in self.shapes.values())
        return dict(zip(self.shapes, chain([0], ends), strict=False))

    @cached_property
    def flat(self) -> np.ndarray:
        """The whole mask as booleans, [N]; takes eight times the memory of `bits`."""
        return np.unpackbits(self.bits, count=self.total).view(bool)

    @cached_property
    def count(self) -> int:
        """The number of entries that the mask keeps."""
        return int(np.bitwise_count(self.bits).sum(dtype=np.int64))

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of entries that the mask keeps in each module."""
        return {name: int(np.count_nonzero(self.of(name))) for name in self.shapes}

    @property
    def sparsity(self) -> float:
        """The share of entries that are masked out, in [0, 1]."""
        return 1 - self.count / self.total

    @classmethod
    def from_flat(cls, shapes: Shapes, flat: np.ndarray) -> Mask:
        """Return the mask of booleans, [N]."""
        return cls(shapes, np.packbits(flat))

    @classmethod
    def from_parts(cls, shapes: Shapes, parts: Iterable[np.ndarray]) -> Mask:
        """Return the mask of each module's booleans, [d_out · rank] or [d_out, rank], in order.

        Raises:
            ValueError: the number of parts or the size of one does not fit the shapes.
        """
        return cls(shapes, _packed(_total(shapes), _checked(shapes, parts)))

    def of(self, module: str) -> np.ndarray:
        """Return one module's booleans, [d_out · rank]."""
        start, (rows, columns) = self.starts[module], self.shapes[module]
        first, lead = divmod(start, 8)
        stop = start + rows * columns
        return np.unpackbits(self.bits[first : -(-stop // 8)])[lead : stop - 8 * first].view(bool)

    def check_shapes(self, shapes: Shapes, what: str) -> None:
        """Check that the mask fits a model's B matrices.

        Args:
            shapes: the shapes of the model's B matrices.
            what: the beginning of the error message.

        Raises:
            AdapterError: the modules, their shapes or their order differ.
        """
        if list(self.shapes.items()) == list(shapes.items()):
            return
        for name in [*self.shapes, *shapes]:
            mine, theirs = self.shapes.get(name), shapes.get(name)
            if mine != theirs:
                raise AdapterError(f"{what}: module {name}: mask has {mine}, model has {theirs}")
        raise AdapterError(f"{what}: the mask's modules stand in another order than the model's")

    def positions(self) -> dict[str, Tensor]:
        """Return the flat indices into [d_out · rank] of each module's kept entries, int64, [k]."""
        return {name: torch.from_numpy(np.flatnonzero(self.of(name))) for name in self.shapes}

    def density_by(self, group: str) -> dict[str, float]:
        """Return the share of entries kept in each group of a mask scope, as `layer`.

        Raises:
            InputError: the scope is unknown.
        """
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
    """Pack booleans that come in parts of any length into bits, uint8, [⌈total/8⌉]."""
    bits = np.zeros(-(-total // 8), dtype=np.uint8)
    position = 0
    for part in parts:
        first, lead = divmod(position, 8)
        position += part.size
        shifted = np.concatenate([np.zeros(lead, dtype=bool), part]) if lead else part
        bits[first : -(-position // 8)] |= np.packbits(shifted)
    return bits


def shapes_of(matrices: Mapping[str, Tensor]) -> Shapes:
    """Return the shape of each module's B."""
    return {name: (int(b.shape[0]), int(b.shape[1])) for name, b in matrices.items()}


def magnitude(B: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |B|, [d_out, rank], by module: the paper's importance (eq. 2)."""
    return {name: b.abs() for name, b in B.items()}


def top(scores: Mapping[str, Tensor], sparsity: Decimal, scope: str) -> tuple[Mask, float]:
    """Select the `N - ⌊s·N⌋` most important entries of each group of a scope (paper, eq. 2).

    Among equal scores the first positions are selected, so counts are exact and the mask is a
    function of the scores alone.

    Args:
        scores: importance of each entry, [d_out, rank], nonnegative, by module.
        sparsity: the share to mask out, in [0, 1).
        scope: a name of `mask_choices.SCOPES`.

    Returns:
        The mask, and the smallest selected importance (τ).

    Raises:
        InputError: the scope is unknown, the sparsity is out of range, or scores are negative, not
            finite or empty.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, matrix in scores.items():
        groups.setdefault(scope_of(scope, name), {})[name] = matrix
    if not all(matrix.numel() for matrix in scores.values()) or not groups:
        raise InputError("importance scores are empty; each module needs at least one")
    thresholds = {group: _threshold(matrices, sparsity) for group, matrices in groups.items()}
    selected = (
        thresholds[scope_of(scope, name)].select(values)
        for name, matrix in scores.items()
        for values in _float_bits(matrix)
    )
    shapes = shapes_of(scores)
    mask = Mask(shapes, _packed(_total(shapes), selected))
    return mask, min(threshold.value for threshold in thresholds.values())


@dataclass
class _Threshold:
    """The selection rule of a group: all entries above a value, and the first few equal to it.

    Attributes:
        digits: the value's float32 bits as an unsigned integer.
        ties: how many of the following equal entries are still to be selected.
    """

    digits: int
    ties: int

    @property
    def value(self) -> float:
        return float(np.uint32(self.digits).view(np.float32))

    def select(self, values: np.ndarray) -> np.ndarray:
        """Return booleans: which of the group's next entries are selected."""
        selected: np.ndarray = values > self.digits
        if self.ties:
            equal = np.flatnonzero(values == self.digits)[: self.ties]
            selected[equal] = True
            self.ties -= equal.size
        return selected


def _float_bits(matrix: Tensor) -> Iterator[np.ndarray]:
    """Yield a matrix in chunks, its float32 bits read as uint32.

    For nonnegative numbers the integers have the same order as the numbers (IEEE 754: the exponent
    lies above the mantissa), so a histogram of their digits finds the exact k-th largest.
    """
    for chunk in matrix.detach().reshape(-1).split(_CHUNK):
        # NumPy's addition: on a busy machine torch's threads wait for each other at every chunk.
        with np.errstate(invalid="ignore"):  # `_check_scores` refuses NaN
            values = chunk.float().cpu().numpy() + np.float32(0)  # -0.0 becomes 0.0
        yield values.view(np.uint32)


def _threshold(matrices: Mapping[str, Tensor], sparsity: Decimal) -> _Threshold:
    """Return the threshold that selects exactly `N - ⌊s·N⌋` of a group's entries."""
    count = kept_count(sum(matrix.numel() for matrix in matrices.values()), sparsity)
    upper = np.zeros(1 << 16, dtype=np.int64)
    for name, matrix in matrices.items():
        counts = _histogram(values >> 16 for values in _float_bits(matrix))
        _check_scores(name, counts)
        upper += counts
    high, count = _kth_largest_digit(upper, count)
    lower = _histogram(
        values[values >> 16 == high] & 0xFFFF
        for matrix in matrices.values()
        for values in _float_bits(matrix)
    )
    low, count = _kth_largest_digit(lower, count)
    return _Threshold(high << 16 | low, count)


def _histogram(digits: Iterable[np.ndarray]) -> np.ndarray:
    """Return the counts of 16-bit digits, which come in pieces, int64, [65536]."""
    counts = np.zeros(1 << 16, dtype=np.int64)
    for piece in digits:
        counts += np.bincount(piece, minlength=counts.size)
    return counts


def _kth_largest_digit(histogram: np.ndarray, count: int) -> tuple[int, int]:
    """Return the digit of the `count`-th largest entry, and its rank among equal digits."""
    at_least = histogram[::-1].cumsum()[::-1]
    digit = int(np.flatnonzero(at_least >= count)[-1])
    return digit, count - int(at_least[digit] - histogram[digit])


def _check_scores(module: str, upper: np.ndarray) -> None:
    """Refuse NaN, infinity and negative scores, by their sign and exponent bits."""
    if upper[0x7F80:0x8000].any() or upper[0xFF80:].any():
        raise InputError(f"importance scores of {module} hold values that are not finite numbers")
    if upper[0x8000:].any():
        raise InputError(f"importance scores of {module} hold values below zero; give |B|, say")


def overlap(first: Mask, second: Mask) -> float:
    """Return the share of all entries that both masks keep; (1 - s)² for independent masks."""
    second.check_shapes(first.shapes, "mask overlap")
    both = int(np.bitwise_count(first.bits & second.bits).sum(dtype=np.int64))
    return both / first.total


def union(first: Mask, second: Mask) -> Mask:
    """Return the mask of entries that either keeps."""
    second.check_shapes(first.shapes, "mask union")
    return Mask(first.shapes, first.bits | second.bits)
