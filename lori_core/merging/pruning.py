"""Merge methods that prune A and B apart by magnitude: DELLA and Model Breadcrumbs.

The papers: "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based
Sampling", Deep, Bhardwaj and Poria, 2024, arXiv 2406.11617; and "Model Breadcrumbs: Scaling
Multi-Task Model Merging with Sparse Masks", Davari and Belilovsky, 2023, arXiv 2312.06795.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lori_core.merging.merge_methods import (
    Options,
    by_factor,
    kept_where,
    majority_mean,
    weighted_sum,
)

if TYPE_CHECKING:
    from torch import Tensor

#: DELLA: by how much the chance to stay of a row's largest entry, and of its smallest, differs
#: from the density, where the density leaves room for it.
WINDOW = 0.1
#: Breadcrumbs: the share of the entries that are outliers, the largest magnitudes (1 − γ).
OUTLIERS = 0.01


def drop_by_magnitude(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Return the tensor with entries dropped at random, the small ones more often (MAGPRUNE).

    The step MAGPRUNE of DELLA (arXiv 2406.11617): in each row the entries are ranked by magnitude,
    and their chance to stay, 1 − p_i, grows evenly with the rank from density − ε for the smallest
    to density + ε for the largest. Entries that stay are divided by their chance, so that the mean
    is kept. The paper's window is 2ε; here ε = min(0.1, density / 2, (1 − density) / 2). Equal
    magnitudes are ranked by position; which entries stay is decided as in `drop_at_random`.
    """
    import torch

    density = options.share_kept
    epsilon = min(WINDOW, density / 2, (1 - density) / 2)
    columns = tensor.shape[1]
    if columns < 2:
        chance = torch.full(tensor.shape, density, dtype=torch.float64)
    else:
        order = tensor.abs().argsort(dim=1, stable=True)
        by_rank = torch.linspace(-epsilon, epsilon, columns, dtype=torch.float64) + density
        chance = torch.empty(tensor.shape, dtype=torch.float64)
        chance.scatter_(1, order, by_rank.expand(tensor.shape))
    kept = kept_where(chance.reshape(-1).numpy(), tensor.numel(), options.seed, stream)
    return tensor * kept.view_as(tensor) / chance.to(tensor.dtype)


def keep_between(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Return the tensor without its outliers and its smallest entries (Model Breadcrumbs).

    The sparse mask of Model Breadcrumbs (arXiv 2312.06795), with its β and γ: of the N magnitudes
    of a tensor, the ⌊0.01 · N⌋ largest are set to zero, and of the others all but the ⌊density ·
    N⌋ largest; so γ = 0.99 and β = γ − density. Where the density leaves less than 0.01 · N to
    drop, fewer outliers are dropped. Of equal magnitudes the first, row by row, count as the
    larger.
    """
    import torch

    magnitudes = tensor.abs().reshape(-1)
    size = magnitudes.numel()
    count = int(options.share_kept * size)
    outliers = min(int(OUTLIERS * size), size - count)
    order = magnitudes.argsort(descending=True, stable=True)
    kept = torch.zeros(size, dtype=torch.bool)
    kept[order[outliers : outliers + count]] = True
    return tensor * kept.view_as(tensor)


by_factor(
    "della", "DELLA", "ties, small entries dropped more often", drop_by_magnitude, majority_mean,
    needs=("density", "seed", "majority_sign"),
)  # fmt: skip
by_factor(
    "breadcrumbs", "Breadcrumbs", "linear, without outliers and the smallest", keep_between,
    weighted_sum, needs=("density",),
)  # fmt: skip
