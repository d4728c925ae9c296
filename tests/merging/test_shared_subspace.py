"""KnOTS, Core Space, TSV-M and Iso-C against their dense definitions in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lori_core.merging.catalogue import MERGE_METHODS
from lori_core.merging.merge_methods import Factors, Options, drop_at_random
from lori_core.merging.truncation import Truncated

OPTIONS = Options(density=0.6, seed=3)
SPACES = ("knots", "core_space")
METHODS = ["tsv", "iso_c", *(f"{s}_{m}" for s in SPACES for m in ("linear", "ties", "dare_ties"))]


def some(
    ranks: Sequence[int] = (2, 5, 3),
    weights: Sequence[float] = (0.4, -0.7, 1.2),
    size: tuple[int, int] = (24, 20),
    seed: int = 1,
) -> list[Factors]:
    """Return random adapters of one module with different scalings."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Factors(
            torch.randn(rank, size[0], generator=generator),
            torch.randn(size[1], rank, generator=generator),
            weight,
            0.5 + index,
            index,
        )
        for index, (rank, weight) in enumerate(zip(ranks, weights, strict=True))
    ]


def deficient() -> list[Factors]:
    """Return adapters of smaller ranks than their factors have, one with an update of zero."""
    first, second, third = some((4, 4, 4))
    first = replace(first, A=torch.cat([first.A[:2], first.A[:2]]))
    second = replace(second, B=second.B * torch.tensor([1.0, 0.0, 1.0, 0.0]))
    return [first, second, replace(third, B=third.B * 0), *some((3,), (0.5,), seed=5)]


def equal() -> list[Factors]:
    """Return three equal adapters."""
    (one,) = some((4,), (0.4,))
    return [replace(one, index=index, weight=w) for index, w in enumerate((0.4, 0.7, 1.0))]


CASES: dict[str, Callable[[], list[Factors]]] = {
    "unequal ranks": some,
    "wide": lambda: some(size=(20, 24)),
    "one": lambda: some((4,), (0.7,)),
    "equal": equal,
    "rank-deficient": deficient,
    "more ranks than rows": lambda: some((5, 6, 4), size=(24, 9)),
    "more ranks than columns": lambda: some((5, 6, 4), size=(9, 24)),
}


def deltas(parents: Sequence[Factors]) -> list[Tensor]:
    """Return s·B @ A of each adapter, dense, float64."""
    return [p.scaling * (p.B.double() @ p.A.double()) for p in parents]


def product(parts: tuple[Tensor, Tensor]) -> Tensor:
    A, B = parts
    return B.double() @ A.double()


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, Σ and Vᵀ without the directions of zero strength."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    kept = s > 1e-6 * s[0]
    return u[:, kept], s[kept], vh[kept]


def signed(columns: Tensor) -> Tensor:
    """Return singular vectors with signs by which the largest entry of each is positive."""
    largest = columns.abs().max(dim=0).indices
    return columns * columns.gather(0, largest[None]).sign()


def ties(terms: Sequence[tuple[Tensor, float]], majority_sign: str) -> Tensor:
    """Return the mean of the weighted entries on the majority's side (TIES: elect, merge)."""
    tensors = torch.stack([tensor for tensor, _ in terms])
    weights = torch.tensor([weight for _, weight in terms], dtype=tensors.dtype)
    signs = tensors.sign() if majority_sign == "frequency" else tensors
    elected = torch.where(signs.sum(0) >= 0, 1.0, -1.0)
    agree = tensors.sign() == elected
    total = (tensors * agree * weights[:, None, None]).sum(0)
    return total / agree.sum(0).clamp(min=1)


def trimmed(tensor: Tensor, density: float) -> Tensor:
    """Return the tensor with its ⌊density · N⌋ largest magnitudes only (TIES: trim)."""
    count = int(density * tensor.numel())
    kept = torch.zeros(tensor.numel(), dtype=torch.bool)
    kept[tensor.abs().reshape(-1).topk(count).indices] = True
    return tensor * kept.view_as(tensor)


def inside(
    name: str, tensors: Sequence[Tensor], parents: Sequence[Factors], options: Options, side: str
) -> Tensor:
    """Merge one tensor of each adapter by task arithmetic, TIES or DARE-TIES."""
    weights = [p.weight for p in parents]
    if name == "linear":
        return sum(w * t for w, t in zip(weights, tensors, strict=True))  # type: ignore[return-value]
    if name == "ties":
        pruned = [trimmed(tensor, options.share_kept) for tensor in tensors]
    else:
        pruned = [
            drop_at_random(t, options, p.stream(side, "m"))
            for t, p in zip(tensors, parents, strict=True)
        ]
    return ties(list(zip(pruned, weights, strict=True)), options.majority_sign)


def knots(name: str, parents: Sequence[Factors], options: Options) -> Tensor:
    """[ΔW_1 … ΔW_T] = U Σ [V_1 … V_T]; ΔW = U @ merged(Σ V_t)."""
    updates = deltas(parents)
    found, s, vh = svd(torch.cat(updates, dim=1))
    u = signed(found)
    signs = (u * found).sum(0).round()
    parts = ((signs * s)[:, None] * vh).split(updates[0].shape[1], dim=1)
    return u @ inside(name, parts, parents, options, "knots")


def core_space(name: str, parents: Sequence[Factors], options: Options) -> Tensor:
    """ΔW = U_B @ merged(U_Bᵀ ΔW_t V_A) @ V_Aᵀ with the bases of the stacked factors."""
    u = signed(svd(torch.cat([p.B.double() for p in parents], dim=1))[0])
    v = signed(svd(torch.cat([p.A.double() for p in parents]))[2].T)
    cores = [u.T @ update @ v for update in deltas(parents)]
    return u @ inside(name, cores, parents, options, "core") @ v.T


def tsv(parents: Sequence[Factors]) -> Tensor:
    """U⊥ Σ V⊥ᵀ of the first 1/T of each update's singular triplets, side by side."""
    updates = [(p.weight, d) for p, d in zip(parents, deltas(parents), strict=True) if d.any()]
    count = min(updates[0][1].shape) // len(updates)
    parts = [(weight, *svd(update)) for weight, update in updates]
    u, _, u_vh = svd(torch.cat([u[:, :count] for _, u, _, _ in parts], dim=1))
    v, _, v_vh = svd(torch.cat([vh[:count].T for _, _, _, vh in parts], dim=1))
    strengths = torch.cat([weight * s[:count] for weight, _, s, _ in parts])
    return (u @ u_vh) @ torch.diag(strengths) @ (v @ v_vh).T


def iso_c(parents: Sequence[Factors]) -> Tensor:
    """σ̄ U Vᵀ of the sum, with the mean of its singular values."""
    total = sum(p.weight * d for p, d in zip(parents, deltas(parents), strict=True))
    u, s, vh = svd(total)  # type: ignore[arg-type]
    return s.mean() * u @ vh


def dense(method: str, parents: Sequence[Factors], options: Options) -> Tensor:
    """Return a method's ΔW by its definition."""
    if method in ("tsv", "iso_c"):
        return {"tsv": tsv, "iso_c": iso_c}[method](parents)
    space = "knots" if method.startswith("knots") else "core_space"
    definition = knots if space == "knots" else core_space
    return definition(method.removeprefix(f"{space}_"), parents, options)


def merged(method: str, parents: Sequence[Factors], options: Options = OPTIONS) -> Truncated:
    found = MERGE_METHODS[method].combine(parents, options, "m")
    assert isinstance(found, Truncated)
    return found


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_it_is_its_dense_definition(method: str, case: str) -> None:
    parents = CASES[case]()
    for majority_sign in ("total", "frequency"):
        options = replace(OPTIONS, majority_sign=majority_sign)
        found = merged(method, parents, options)
        expected = dense(method, parents, options)
        assert close(product(found), expected)
        assert found.norm == pytest.approx(float(expected.square().sum()), rel=1e-5)
        assert found.lost == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_rank_gives_the_best_approximation_and_what_it_loses(method: str, rank: int) -> None:
    whole = dense(method, some(), OPTIONS)
    u, s, vh = torch.linalg.svd(whole)
    best = u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]
    found = merged(method, some(), replace(OPTIONS, rank=rank))
    assert (found[0].shape, found[1].shape) == ((rank, 24), (20, rank))
    if method == "iso_c":  # all directions are equally strong, so that any of them are the best
        assert float((product(found) - whole).square().sum()) == pytest.approx(found.lost, rel=1e-4)
    else:
        assert close(product(found), best)
    assert found.lost == pytest.approx(float(s[rank:].square().sum()), rel=1e-5)
    assert found.norm == pytest.approx(float(s.square().sum()), rel=1e-5)


@pytest.mark.parametrize("method", ["knots_linear", "core_space_linear"])
@pytest.mark.parametrize("case", CASES)
def test_task_arithmetic_in_a_space_is_the_weighted_sum(method: str, case: str) -> None:
    parents = CASES[case]()
    total = sum(p.weight * d for p, d in zip(parents, deltas(parents), strict=True))
    assert close(product(merged(method, parents)), total)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_adapters_does_not_matter(method: str) -> None:
    parents = some()
    backward = product(merged(method, parents[::-1]))
    assert close(backward, product(merged(method, parents)))


@pytest.mark.parametrize("method", METHODS)
def test_updates_of_zero_merge_to_zero(method: str) -> None:
    parents = [replace(parent, B=parent.B * 0) for parent in some()]
    A, B = found = merged(method, parents)
    assert not product(found).any()
    assert (A.shape, B.shape) == ((10, 24), (20, 10))
    assert bool(A.isfinite().all())
    assert (found.norm, found.lost) == (0, 0)


def test_equal_adapters_are_their_mean_by_tsv_and_their_sum_by_iso_c() -> None:
    parents = equal()
    (update, *_) = deltas(parents)
    assert close(product(merged("tsv", parents)), 0.7 * update)
    alone = product(merged("iso_c", parents[:1])) / 0.4
    assert close(product(merged("iso_c", parents)), 2.1 * alone)
    strengths = torch.linalg.svdvals(alone)
    assert torch.allclose(strengths[:4], torch.linalg.svdvals(update).sum().expand(4) / 4)


def test_tsv_takes_updates_in_orthogonal_directions_as_they_are() -> None:
    q, _ = torch.linalg.qr(torch.randn(20, 6, generator=torch.Generator().manual_seed(2)))
    p, _ = torch.linalg.qr(torch.randn(24, 6, generator=torch.Generator().manual_seed(3)))
    parents = [
        Factors(p[:, i : i + 2].T.contiguous(), q[:, i : i + 2].contiguous(), 0.5 + i, 2.0, i)
        for i in (0, 2, 4)
    ]
    total = sum(p.weight * d for p, d in zip(parents, deltas(parents), strict=True))
    assert close(product(merged("tsv", parents)), total)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_no_matrix_of_the_modules_size_is_formed(method: str) -> None:
    """As float32, one matrix of 300,000 x 300,000 would take 360 GB."""
    A, B = merged(method, some((1, 2), (0.5, 1.0), size=(300_000, 300_000)))
    assert (A.shape, B.shape) == ((3, 300_000), (300_000, 3))
