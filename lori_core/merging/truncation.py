"""Cutting a merged update to a rank, and what that loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Truncated(tuple["Tensor", "Tensor"]):
    """A' [r, d_in] and B' [d_out, r], float32, of an update that was cut to the rank r.

    Attributes:
        norm: ‖ΔW‖² (Frobenius) before the cut.
        lost: ‖ΔW − B' @ A'‖²; 0 where nothing was cut away.
    """

    norm: float
    lost: float

    def __new__(cls, A: Tensor, B: Tensor, norm: float, lost: float) -> Truncated:
        """Make the pair."""
        pair = super().__new__(cls, (A, B))
        pair.norm, pair.lost = norm, lost
        return pair


def truncated_core(left: Tensor, core: Tensor, right: Tensor, rank: int) -> Truncated:
    """Return the best approximation of left @ core @ rightᵀ of a rank, padded with zeros up to it.

    The singular value decomposition of the product is that of the core between the two bases, so
    the product is never formed. A' has orthonormal rows, the strongest first.

    Args:
        left: [d_out, k], float64, orthonormal columns.
        core: [k, l], float64.
        right: [d_in, l], float64, orthonormal columns.
        rank: of the result.
    """
    import torch

    u, s, vh = torch.linalg.svd(core, full_matrices=False)
    A, B = vh[:rank] @ right.T, left @ (u[:, :rank] * s[:rank])
    squares = s.square()
    return padded(A, B, rank, float(squares.sum()), float(squares[rank:].sum()))


def padded(A: Tensor, B: Tensor, rank: int, norm: float, lost: float = 0.0) -> Truncated:
    """Return A [k, d_in] and B [d_out, k] as float32, with zeros added up to `rank`, k or more."""
    from torch.nn.functional import pad

    missing = rank - A.shape[0]
    A, B = pad(A.float(), (0, 0, 0, missing)), pad(B.float(), (0, missing))
    return Truncated(A.contiguous(), B.contiguous(), norm, lost)


def truncated_delta(delta: Tensor, rank: int) -> Truncated:
    """Return A', B' of a rank whose product is nearest to ΔW [d_out, d_in] (Eckart-Young).

    One of the two holds ΔW's leading singular vectors, the strongest first, the other ΔW projected
    on them.
    """
    import torch
    from scipy.linalg import eigh

    # The leading eigenvectors of the smaller Gram matrix: a fraction of a whole decomposition's
    # time, and in float64 closer than that one is in float32.
    wide = delta.shape[0] < delta.shape[1]
    tall = (delta.T if wide else delta).double()
    gram = (tall.T @ tall).numpy()
    norm = float(gram.trace())
    _, vectors = eigh(gram, subset_by_index=(len(gram) - rank, len(gram) - 1), overwrite_a=True)
    basis = torch.from_numpy(vectors).flip(1)
    projected = tall @ basis
    A, B = (projected.T, basis) if wide else (basis.T, projected)
    lost = 0.0 if rank == tall.shape[1] else max(0.0, norm - float(projected.square().sum()))
    return padded(A, B, rank, norm, lost)
