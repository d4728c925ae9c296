"""Arithmetic of the methods that protect an earlier adapter: bases, projections, penalties."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def column_basis(matrix: Tensor) -> Tensor:
    """Return an orthonormal basis of a matrix's column space, [d, k], in the matrix's dtype.

    Args:
        matrix: [d, r], or a batch of them, [..., d, r]. In a batch k is r; a matrix of lower rank
            gets zero columns.
    """
    U, S, _ = torch.linalg.svd(matrix.double(), full_matrices=False)
    tolerance = S.amax(-1, keepdim=True) * max(matrix.shape[-2:]) * torch.finfo(torch.float32).eps
    spans = tolerance.lt(S)
    basis: Tensor = U[:, spans] if matrix.dim() == 2 else U * spans.unsqueeze(-2)
    return basis.to(matrix.dtype)


def without(values: Tensor, basis: Tensor) -> Tensor:
    """Return `values - U (Uᵀ values)`: its columns without their part in the span of U.

    Args:
        values: [d, n], or a batch, [..., d, n].
        basis: U, with orthonormal (or zero) columns, [d, k], or a batch.
    """
    return values - basis @ (basis.mT @ values)


class MaskedColumns:
    """Projects changes of masked entries of B, column by column, so that they stay in the mask.

    With the columns u of U, the change c_j of column j has its entries at the mask's rows only, and
    u·c_j = 0 for each u: c_j is projected to what is orthogonal to the rows of U in the mask.

    Args:
        basis: U, [d_out, k].
        positions: flat indices into [d_out, rank] of the trained entries, int64, [n].
        rank: the rank.
    """

    def __init__(self, basis: Tensor, positions: Tensor, rank: int) -> None:
        rows, columns = positions // rank, positions % rank
        counts = torch.bincount(columns, minlength=rank)
        longest = max(1, int(counts.max()))
        order = torch.argsort(columns, stable=True)
        first = counts.cumsum(0) - counts
        place = torch.arange(len(order), device=order.device) - first[columns[order]]
        #: For each trained entry, its place among [rank, longest].
        self.flat = torch.empty_like(order)
        self.flat[order] = columns[order] * longest + place
        self.shape = (rank, longest)
        padded = basis.new_zeros(rank * longest, basis.shape[1])
        padded[self.flat] = basis[rows]
        self.basis = column_basis(padded.view(rank, longest, -1))

    def project(self, change: Tensor) -> Tensor:
        """Return the projected change of the trained entries, [n]."""
        padded = change.new_zeros(self.shape[0] * self.shape[1])
        padded[self.flat] = change
        return without(padded.view(*self.shape, 1), self.basis).view(-1)[self.flat]


def quadratic(pairs: Iterable[tuple[Tensor, Tensor, Tensor | float]], strength: float) -> Tensor:
    """Return `strength / 2 · Σ_i F_i (θ_i - θ*_i)²`, a scalar.

    Args:
        pairs: the trained θ, the anchor θ* and the importance F of each parameter.
        strength: λ.
    """
    terms = [(weight * (now - before).square()).sum() for now, before, weight in pairs]
    return torch.stack(terms).sum() * (strength / 2)


def overlap(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return `Σ_modules Σ_jk |A A'ᵀ|_jk`, a scalar, from pairs of A [r, d_in] and A' [r', d_in]."""
    return torch.stack([(A @ other.T).abs().sum() for A, other in pairs]).sum()


def orthonormal_rows(A: Tensor) -> Tensor:
    """Return `Qᵀ` of the QR decomposition of Aᵀ whose R has a positive diagonal, [r, d_in].

    The rows are an orthonormal basis of the row space of A, in the order of its rows.
    """
    Q, R = torch.linalg.qr(A.double().T)
    signs = torch.where(R.diagonal() < 0, -1.0, 1.0).to(Q.dtype)
    rows: Tensor = (Q * signs).T
    return rows.to(A.dtype)
