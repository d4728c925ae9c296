"""The leading singular triplets of a large matrix: randomised, the same on each run."""

from __future__ import annotations

import torch
from torch import Tensor

#: Columns more than the rank asked for, and passes over the matrix that sharpen the basis.
_OVERSAMPLING, _POWER_ITERATIONS = 16, 4
#: Matrices whose smaller side is at most this are decomposed exactly.
_SMALL = 256
_SEED = 0


def leading_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U [m, k], σ [k] and Vᵀ [k, n] of the k = min(rank, m, n) largest singular values.

    Randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1) with a
    fixed seed; exact, in float64, where the matrix is small or the rank is not small beside it.

    Args:
        matrix: [m, n], float32.
        rank: at least 1.

    Returns:
        float32.
    """
    smaller = min(matrix.shape)
    rank = min(rank, smaller)
    width = rank + _OVERSAMPLING
    if smaller <= _SMALL or 2 * width > smaller:
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    else:
        generator = torch.Generator().manual_seed(_SEED)
        q = torch.randn(matrix.shape[1], width, generator=generator)
        for _ in range(_POWER_ITERATIONS):
            q = torch.linalg.qr(matrix @ q)[0]
            q = torch.linalg.qr(matrix.T @ q)[0]
        q = torch.linalg.qr(matrix @ q)[0]
        u, s, vh = torch.linalg.svd((q.T @ matrix).double(), full_matrices=False)
        u = q.double() @ u
    return u[:, :rank].float(), s[:rank].float(), vh[:rank].float()
