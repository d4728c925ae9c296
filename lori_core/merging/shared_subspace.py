"""Merge methods in a subspace that the adapters share: KnOTS, Core Space, TSV-M and Iso-C.

All of them work on the factors alone. With Q_B from the QR decomposition of the stacked B
[d_out, Σr] and Q_A from that of the stacked Aᵀ [d_in, Σr], every update is
ΔW_t = Q_B @ C_t @ Q_Aᵀ with a small core C_t, so no matrix of d_out x d_in is formed and the cost
grows with d · (Σr)². Decompositions are in float64.

The papers:

* KnOTS: "Model merging with SVD to tie the Knots", Stoica, Ramesh, Ecsedi, Choshen and Hoffman,
  2024, arXiv 2410.19735;
* Core Space: "Accurate and Efficient Low-Rank Model Merging in Core Space", Panariello, Marczak,
  Magistri, Porrello, Twardowski, Bagdanov, Calderara and van de Weijer, 2025, arXiv 2509.17786;
* TSV-M: "Task Singular Vectors: Reducing Task Interference in Model Merging", Gargiulo, Crisostomi,
  Bucarelli, Scardapane, Silvestri and Rodolà, 2024, arXiv 2412.00081;
* Iso-C: "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces",
  Marczak, Magistri, Cygert, Twardowski, Bagdanov and van de Weijer, 2025, arXiv 2502.04959.

Weights multiply the updates after they were pruned and the signs were elected, as in `ties_svd`.
Directions whose singular value is below 1e-6 of the largest are rounding of the float32 factors
and are left out: their singular vectors are arbitrary, and some methods would make them strong.
Where entries are merged in a basis of singular vectors, the largest entry of each of these is
positive: their signs are arbitrary, too, and would decide where as many entries are positive as
negative (`majority_sign: frequency`).
The result has the full rank, Σr or the smaller side of the module where that is less, or is the
best approximation of it of the rank asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lori_core.merging.merge_methods import (
    USES,
    Factors,
    Join,
    Options,
    Sparsify,
    drop_at_random,
    keep_all,
    keep_largest,
    majority_mean,
    weighted_sum,
)
from lori_core.merging.truncation import Truncated, padded, truncated_core
from lori_core.registries.merge_method import merge_method

if TYPE_CHECKING:
    from torch import Tensor

#: Relative to the largest singular value.
NEGLIGIBLE = 1e-6


def full_or_given_rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    """Return the rank of the result: Σr unless one is given, at most the module's smaller side."""
    most = min(sum(ranks), *size)
    return min(options.rank or most, most)


@dataclass(frozen=True)
class _Shared:
    """The adapters' updates in common orthonormal bases: B_t = left @ b[t], A_tᵀ = right @ a[t].

    Attributes:
        left: [d_out, k], float64, orthonormal columns.
        b: [k, r_t] by adapter, float64.
        right: [d_in, l], float64, orthonormal columns.
        a: [l, r_t] by adapter, float64.
        scalings: by adapter.
        rank: of the result.
    """

    left: Tensor
    b: Sequence[Tensor]
    right: Tensor
    a: Sequence[Tensor]
    scalings: Sequence[float]
    rank: int

    @property
    def cores(self) -> list[Tensor]:
        """C_t [k, l] of each adapter: ΔW_t = left @ C_t @ rightᵀ, without the weights."""
        parts = zip(self.b, self.a, self.scalings, strict=True)
        return [s * (b @ a.T) for b, a, s in parts]


def _shared(parents: Sequence[Factors], options: Options) -> _Shared:
    import torch

    ranks = [p.rank for p in parents]
    left, b = torch.linalg.qr(torch.cat([p.B for p in parents], dim=1).double())
    right, a = torch.linalg.qr(torch.cat([p.A for p in parents]).double().T)
    size = (right.shape[0], left.shape[0])
    return _Shared(
        left, b.split(ranks, dim=1), right, a.split(ranks, dim=1), [p.scaling for p in parents],
        full_or_given_rank(ranks, size, options),
    )  # fmt: skip


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, σ and Vᵀ of the directions that are not negligible."""
    import torch

    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    count = int((s > NEGLIGIBLE * s[:1]).sum())
    return u[:, :count], s[:count], vh[:count]


def _signed(basis: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return basis @ vectors [d, k] with the largest entry of each column positive, and vectors."""
    columns = basis @ vectors
    largest = columns.abs().argmax(dim=0) if columns.numel() else columns.new_zeros(0).long()
    signs = columns.gather(0, largest[None]).sign()
    return columns * signs, vectors * signs


def _orthonormal(columns: Tensor) -> Tensor:
    """Return P @ Qᵀ of columns = P·D·Qᵀ, the nearest matrix of orthonormal columns (Procrustes)."""
    p, _, qh = _svd(columns)
    return p @ qh


#: The adapters' updates in shared bases, the adapters -> the core of the merged update.
_Merge = Callable[[_Shared, "Sequence[Factors]"], "Tensor"]


def _by_core(name: str, label: str, about: str) -> Callable[[_Merge], _Merge]:
    """Register a method that gives the core of the merged update, ΔW = left @ core @ rightᵀ."""

    def register(merged_core: _Merge) -> _Merge:
        @merge_method(name, label, about, needs=("rank",), rank=full_or_given_rank)
        def combine(parents: Sequence[Factors], options: Options, module: str) -> Truncated:
            shared = _shared(parents, options)
            core = merged_core(shared, parents)
            return truncated_core(shared.left, core, shared.right, shared.rank)

        return merged_core

    return register


@_by_core("tsv", "TSV-M", "singular vectors of all tasks made orthogonal")
def tsv(shared: _Shared, parents: Sequence[Factors]) -> Tensor:
    """Return the core of U⊥ @ Σ @ V⊥ᵀ (TSV-Merge, arXiv 2412.00081, Algorithm 1).

    ΔW_t = U_t·Σ_t·V_tᵀ, of which the first 1/T of the min(d_out, d_in) directions stay: all of
    them, where the ranks are small. U = [U_1 … U_T] and V are each replaced by the nearest matrix
    of orthonormal columns, P @ Qᵀ of U = P·D·Qᵀ; Σ holds w_t·Σ_t. T counts the adapters whose
    update is not zero. Where U has fewer independent columns than columns, P and Q are those of
    its rank: of two equal adapters the result is the mean.
    """
    import torch

    parts = [
        (p.weight, *_svd(core))
        for p, core in zip(parents, shared.cores, strict=True)
        if p.weight != 0
    ]
    parts = [part for part in parts if len(part[2])]
    if not parts:
        return shared.cores[0] * 0
    most = max(1, min(len(shared.left), len(shared.right)) // len(parts))
    u = torch.cat([u[:, :most] for _, u, _, _ in parts], dim=1)
    s = torch.cat([weight * s[:most] for weight, _, s, _ in parts])
    v = torch.cat([vh[:most].T for _, _, _, vh in parts], dim=1)
    return (_orthonormal(u) * s) @ _orthonormal(v).T


@_by_core("iso_c", "Iso-C", "sum of the ΔWs, all singular values made equal")
def iso_c(shared: _Shared, parents: Sequence[Factors]) -> Tensor:
    """Return the core of σ̄·U @ Vᵀ, where U·Σ·Vᵀ = Σ w_t·ΔW_t.

    Iso-C, arXiv 2502.04959, section 4.1: Algorithm 1, with σ̄ of eq. 7 and the product of eq. 8.
    σ̄ is the mean of the singular values: of as many as the sum's rank, since those of zero have
    no singular vectors of their own. (The paper's matrices are of full rank.)
    """
    import torch

    total = torch.stack(
        [p.weight * core for p, core in zip(parents, shared.cores, strict=True)]
    ).sum(0)
    u, s, vh = _svd(total)
    return (u @ vh) * (s.sum() / max(1, len(s)))


def _merged(
    tensors: Sequence[Tensor],
    parents: Sequence[Factors],
    options: Options,
    sparsify: Sparsify,
    join: Join,
    stream: tuple[str, str],
) -> Tensor:
    """Merge tensors of one shape, one an adapter, by pruning and joining them; float32."""
    terms = (
        (sparsify(tensor.float(), options, p.stream(*stream)), p.weight)
        for p, tensor in zip(parents, tensors, strict=True)
    )
    return join(terms, options)


def _knots(
    parents: Sequence[Factors], options: Options, module: str, sparsify: Sparsify, join: Join
) -> Truncated:
    """Merge Σ·V_t of [ΔW_1 … ΔW_T] = U·Σ·[V_1 … V_T] (KnOTS, arXiv 2410.19735).

    ΔW = U @ merged(Σ·V_1, …, Σ·V_T); as in the authors' code, Σ is in what is pruned. With
    A_tᵀ = Q_t·R_t, U and Σ are those of [s_t·B_t @ R_tᵀ], since the Q_t have orthonormal columns.
    """
    import torch

    rank = full_or_given_rank(
        [p.rank for p in parents], (parents[0].A.shape[1], parents[0].B.shape[0]), options
    )
    left, b = torch.linalg.qr(torch.cat([p.B for p in parents], dim=1).double())
    parts = list(zip(b.split([p.rank for p in parents], dim=1), parents, strict=True))
    roots = [torch.linalg.qr(p.A.double().T, mode="r")[1] for p in parents]
    u, _, _ = _svd(
        torch.cat([p.scaling * (b @ r.T) for (b, p), r in zip(parts, roots, strict=True)], dim=1)
    )
    basis, u = _signed(left, u)
    rows = [((u.T @ b) * p.scaling).float() @ p.A for b, p in parts]
    merged = _merged(rows, parents, options, sparsify, join, ("knots", module))
    if len(merged) <= rank:
        return padded(merged, basis, rank, float(merged.double().square().sum()))
    right, r = torch.linalg.qr(merged.double().T)
    return truncated_core(basis, r.T, right, rank)


def _core_space(
    parents: Sequence[Factors], options: Options, module: str, sparsify: Sparsify, join: Join
) -> Truncated:
    """Merge the core matrices M_t = U_Bᵀ @ ΔW_t @ V_A (Core Space, arXiv 2509.17786).

    U_B are the left singular vectors of [B_1 … B_T], V_A the right ones of [A_1; …; A_T], both of
    the factors as they are; the scaling s_t is in M_t. ΔW = U_B @ merged(M_1, …, M_T) @ V_Aᵀ.
    """
    import torch

    shared = _shared(parents, options)
    left, u_b = _signed(shared.left, _svd(torch.cat(list(shared.b), dim=1))[0])
    right, u_a = _signed(shared.right, _svd(torch.cat(list(shared.a), dim=1))[0])
    cores = [u_b.T @ core @ u_a for core in shared.cores]
    merged = _merged(cores, parents, options, sparsify, join, ("core", module)).double()
    return truncated_core(left, merged, right, shared.rank)


#: Names, what is said of them, and the two choices.
_INSIDE: tuple[tuple[str, str, str, Sparsify, Join], ...] = (
    ("linear", "", "weighted sum", keep_all, weighted_sum),
    ("ties", " TIES", "largest entries, mean of the majority", keep_largest, majority_mean),
    ("dare_ties", " DARE-TIES", "ties, entries dropped at random", drop_at_random, majority_mean),
)


def _register(
    space: str,
    label: str,
    about: str,
    combine_in: Callable[..., Truncated],
) -> None:
    """Register the methods that merge inside one space."""
    for name, more, inside, sparsify, join in _INSIDE:
        needs = (*USES[sparsify], *USES[join], "rank")

        @merge_method(
            f"{space}_{name}", f"{label}{more}", f"{about}: {inside}", needs=needs,
            rank=full_or_given_rank,
        )  # fmt: skip
        def combine(
            parents: Sequence[Factors],
            options: Options,
            module: str,
            sparsify: Sparsify = sparsify,
            join: Join = join,
        ) -> Truncated:
            return combine_in(parents, options, module, sparsify, join)


_register("knots", "KnOTS", "in the SVD of all ΔWs side by side", _knots)
_register("core_space", "Core Space", "in the bases of all A and all B", _core_space)
