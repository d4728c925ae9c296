"""Structured masks, which keep whole rows, blocks or groups of B (the paper's future work).

A structure's importance is the mean over its entries. The `⌊k / size⌋` most important structures
of each group of the scope are kept, where k is the number of entries that the unstructured mask
would keep of the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, localcontext

import numpy as np
import torch
from torch import Tensor

from lori_core.adapters.masks.mask import Mask, kept_count, scope_of, shapes_of, top
from lori_core.adapters.masks.mask_choices import KINDS
from lori_core.core.errors import InputError, unknown

#: Single entries: no structure.
NONE = "none"


def top_structures(
    scores: Mapping[str, Tensor], sparsity: Decimal, scope: str, structure: str
) -> tuple[Mask, float]:
    """Select the most important structures of each group of a scope.

    Args:
        scores: importance of each entry, [d_out, rank], nonnegative, by module.
        sparsity: the share to mask out, in [0, 1).
        scope: a name of `mask_choices.SCOPES`: which structures are ranked together.
        structure: `none` for single entries, or another name of `mask_choices.KINDS`.

    Returns:
        The mask, and the smallest importance of a selected structure.

    Raises:
        InputError: as `mask.top`; the structure is unknown or does not divide a B, or the sparsity
            keeps no whole structure of a group.
    """
    if structure not in KINDS:
        raise InputError(unknown("structure", structure, KINDS))
    if structure == NONE:
        return top(scores, sparsity, scope)
    sizes = {name: _size(name, matrix, structure) for name, matrix in scores.items()}
    pooled = {name: _pooled(matrix, sizes[name]) for name, matrix in scores.items()}
    groups: dict[str, list[str]] = {}
    for name in scores:
        groups.setdefault(scope_of(scope, name), []).append(name)
    found: dict[str, Mask] = {}
    thresholds = []
    for group, names in groups.items():
        entries = sum(scores[name].numel() for name in names)
        inside = {name: pooled[name] for name in names}
        count = _count(inside, entries, sparsity)
        if count < 1:
            where = "this model" if scope == "model" else f"the {scope} {group}"
            raise InputError(f"sparsity {sparsity} keeps no whole {structure} of {where}")
        chosen, threshold = _largest(inside, count)
        found |= dict.fromkeys(names, chosen)
        thresholds.append(threshold)
    parts = (
        np.kron(
            found[name].of(name).reshape(pooled[name].shape), np.ones(sizes[name], dtype=bool)
        ).reshape(-1)
        for name in scores
    )
    return Mask.from_parts(shapes_of(scores), parts), min(thresholds)


def _count(pooled: Mapping[str, Tensor], entries: int, sparsity: Decimal) -> int:
    """Return how many whole structures fit into the entries that an unstructured mask keeps."""
    size = Decimal(entries) / sum(matrix.numel() for matrix in pooled.values())
    return int(kept_count(entries, sparsity) / size)


def _largest(pooled: Mapping[str, Tensor], count: int) -> tuple[Mask, float]:
    """Return the mask of the `count` largest values of all matrices, and the smallest of them."""
    total = sum(matrix.numel() for matrix in pooled.values())
    with localcontext(rounding=ROUND_CEILING):  # so that N' - ⌊s'·N'⌋ is the count, never more
        share = Decimal(total - count) / total
    return top(pooled, share, "model")


def _size(name: str, matrix: Tensor, structure: str) -> tuple[int, int]:
    rows, columns = matrix.shape
    height, width = KINDS[structure].size(columns)
    if rows % height or columns % width:
        raise InputError(
            f"lori.structure: {structure} is {height} x {width}, B of {name} is {rows} x {columns}"
            "; choose a rank and modules that it divides"
        )
    return height, width


def _pooled(matrix: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = matrix.shape
    height, width = size
    parts = matrix.detach().float().cpu().view(rows // height, height, columns // width, width)
    return torch.mean(parts, dim=(1, 3))
