"""Every merge method on one module: against PEFT, against float64, and by its identities."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice, product
from typing import Any

import documented
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lori_core.core.errors import InputError
from lori_core.merging import merge_methods
from lori_core.merging.merge_methods import (
    MERGE_METHODS,
    Factors,
    Options,
    check_options,
    majority_mean,
)
from support import TARGETS, random_adapter, tiny

OPTIONS = Options(density=0.6, seed=3)
WEIGHTS = (0.4, 0.7, 1.2)
#: The methods that merge adapters of any origin.
GENERAL = {name: method for name, method in MERGE_METHODS.items() if not method.starts}
PEFTS_BY_FACTOR = ["linear", "magnitude_prune", "ties", "dare_linear", "dare_ties"]
PEFTS = ["concat", *PEFTS_BY_FACTOR, *(name for name in MERGE_METHODS if name.endswith("svd"))]
BY_FACTOR = [*PEFTS_BY_FACTOR, "della", "breadcrumbs"]
#: Those whose result has the full rank unless a rank is given.
SHARED = [name for name in GENERAL if name not in {*PEFTS, *BY_FACTOR, "safemerge"}]
ELECTED = [name for name in PEFTS if "majority_sign" in MERGE_METHODS[name].uses]
VARIANTS = [(name, "total") for name in PEFTS] + [(name, "frequency") for name in ELECTED]
#: Iso-C changes the singular values of a single adapter, too.
KEEPING = [name for name in GENERAL if name != "iso_c"]


def delta(parts: tuple[Tensor, Tensor]) -> Tensor:
    """Return B' @ A' in float64."""
    A, B = parts
    return B.double() @ A.double()


def some(
    ranks: Sequence[int] = (4, 4, 4),
    weights: Sequence[float] = WEIGHTS,
    size: tuple[int, int] = (12, 10),
    sparsity: float = 0.0,
    seed: int = 1,
) -> list[Factors]:
    """Return random adapters of one module with different scalings."""
    generator = torch.Generator().manual_seed(seed)
    d_in, d_out = size
    parents = []
    for index, (rank, weight) in enumerate(zip(ranks, weights, strict=True)):
        A = torch.randn(rank, d_in, generator=generator)
        B = torch.randn(d_out, rank, generator=generator)
        B *= torch.rand(d_out, rank, generator=generator) >= sparsity
        parents.append(Factors(A, B, weight, 0.5 + index, index))
    return parents


def weighted_sum(parents: Sequence[Factors]) -> Tensor:
    """Return Σ w·s·B @ A in float64."""
    terms = [p.weight * p.scaling * delta((p.A, p.B)) for p in parents]
    return torch.stack(terms).sum(0)


def best(matrix: Tensor, rank: int) -> Tensor:
    """Return the best approximation of a rank, by the whole decomposition in float64."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]


def agree(method: str, ours: Tensor, theirs: Tensor) -> bool:
    """Whether two ΔW differ by no more than float error, relative to the largest entry.

    A cut to a rank is as sensitive as two singular values are close, and PEFT's is in float32.
    """
    bound = 5e-5 if MERGE_METHODS[method].dense else 2e-6
    return bool((ours - theirs).abs().max() <= bound * theirs.abs().max())


@cache
def parents_of(sparsity: str | None) -> list[Any]:
    """Return three adapters of equal ranks and unequal alphas."""
    return [
        random_adapter(key=f"k{i}", alpha=6 + 5 * i, sparsity=sparsity, seed=i) for i in range(3)
    ]


@cache
def stock(sparsity: str | None) -> Any:
    """Return a PEFT model that wears them as a0, a1, a2."""
    from peft import LoraConfig, get_peft_model

    model: Any = None
    for index, parent in enumerate(parents_of(sparsity)):
        alpha = next(iter(parent.modules.values())).lora_alpha
        config = LoraConfig(r=4, lora_alpha=alpha, target_modules=list(TARGETS["llama"]))
        if model is None:
            model = get_peft_model(tiny("llama")[0], config, adapter_name="a0")
        else:
            model.add_adapter(f"a{index}", config)
        for name in parent.modules:
            layer = model.get_submodule(f"base_model.model.{name}")
            layer.lora_A[f"a{index}"].weight.data = parent.A(name)
            layer.lora_B[f"a{index}"].weight.data = parent.B(name)
    return model


def same_drops(modules: Sequence[str], sides: Sequence[str]) -> Callable[..., Tensor]:
    """Return a stand-in for PEFT's random pruning that drops what ours drops.

    PEFT calls it without saying for what: module by module, A before B, adapter by adapter.
    """
    streams: Iterator[str] = (
        f"{index}\n{side}\n{module}"
        for module, side, index in product(modules, sides, range(len(WEIGHTS)))
    )

    def pruned(tensor: Tensor, density: float, rescale: bool) -> Tensor:
        assert rescale
        options = replace(OPTIONS, density=density)
        kept = merge_methods.drop_at_random(torch.ones_like(tensor), options, next(streams)) != 0
        return tensor * kept / density

    return pruned


def both(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    weights: Sequence[float],
    options: Options,
    sparsity: str | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each module's ΔW by our method and by PEFT's."""
    parents, model = parents_of(sparsity), stock(sparsity)
    modules = list(parents[0].modules)
    sides = ("delta",) if method.endswith("svd") else ("A", "B")
    monkeypatch.setattr("peft.utils.merge_utils.random_pruning", same_drops(modules, sides))
    model.add_weighted_adapter(
        ["a0", "a1", "a2"],
        list(weights),
        "merged",
        combination_type={"concat": "cat"}.get(method, method),
        density=options.density,
        majority_sign_method=options.majority_sign,
        svd_rank=options.rank,
    )
    try:
        for name in modules:
            factors = [
                Factors(p.A(name), p.B(name), weight, p.scaling(name), index)
                for index, (p, weight) in enumerate(zip(parents, weights, strict=True))
            ]
            theirs = model.get_submodule(f"base_model.model.{name}").get_delta_weight("merged")
            yield delta(MERGE_METHODS[method].combine(factors, options, name)).float(), theirs
    finally:
        model.delete_adapter("merged")


@pytest.mark.parametrize("sparsity", ["0.9", None])
@pytest.mark.parametrize(("method", "majority_sign"), VARIANTS)
def test_it_is_pefts(
    monkeypatch: pytest.MonkeyPatch, method: str, majority_sign: str, sparsity: str | None
) -> None:
    options = replace(OPTIONS, majority_sign=majority_sign)
    pairs = list(both(monkeypatch, method, WEIGHTS, options, sparsity))
    assert len(pairs) == 14
    for ours, theirs in pairs:
        assert theirs.abs().max() > 1e-3
        assert agree(method, ours, theirs)


@pytest.mark.parametrize("method", PEFTS)
def test_it_is_pefts_where_all_weights_are_negative(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for ours, theirs in both(monkeypatch, method, [-w for w in WEIGHTS], OPTIONS, "0.9"):
        assert agree(method, ours, theirs)


@pytest.mark.parametrize("method", PEFTS)
def test_it_is_pefts_where_the_signs_are_mixed(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    options = OPTIONS if method in BY_FACTOR else replace(OPTIONS, rank=6)
    for ours, theirs in both(monkeypatch, method, (0.4, -0.7, 1.2), options, "0.9"):
        assert agree(method, ours, theirs)


@pytest.mark.parametrize("weights", [(0.4, 0.7, 1.2), (0.4, -0.7, 1.2)])
def test_linear_pads_ranks_and_puts_the_sign_on_a(weights: tuple[float, ...]) -> None:
    parents = some((2, 5, 3), weights)
    expected = torch.zeros(10, 12, dtype=torch.float64)
    for left, right in product(parents, repeat=2):
        rank = min(left.rank, right.rank)
        root = math.sqrt(abs(left.factor * right.factor))
        cross = left.B[:, :rank].double() @ right.A[:rank].double()
        expected += math.copysign(root, right.weight) * cross
    merged = MERGE_METHODS["linear"].combine(parents, OPTIONS, "m")
    assert torch.allclose(delta(merged), expected, atol=1e-4)


@pytest.mark.parametrize("method", BY_FACTOR)
def test_adapters_of_unequal_ranks_are_pruned_as_they_are_then_padded(method: str) -> None:
    small, large = some((2, 5), WEIGHTS[:2])
    padded = replace(
        small,
        A=torch.cat([small.A, torch.zeros(3, 12)]),
        B=torch.nn.functional.pad(small.B, (0, 3)),
    )
    combine = MERGE_METHODS[method].combine
    A, B = combine([small, large], Options(density=1.0), "m")
    expected = combine([padded, large], Options(density=1.0), "m")
    assert torch.equal(A, expected[0])
    assert torch.equal(B, expected[1])
    # At a density, an adapter that is alone keeps its own share, whatever it is padded to.
    alone = replace(large, A=torch.zeros_like(large.A), B=torch.zeros_like(large.B))
    if "prune" in method:
        A, B = combine([small, alone], Options(density=0.5), "m")
        assert (A.count_nonzero(), B.count_nonzero()) == (12, 10)


@pytest.mark.parametrize("method", KEEPING)
def test_one_adapter_of_weight_one_is_itself(method: str) -> None:
    for size in [(12, 10), (10, 12), (3, 9)]:
        (parent,) = some((4,), (1.0,), size)
        merged = MERGE_METHODS[method].combine([parent], Options(density=1.0), "m")
        assert torch.allclose(delta(merged), weighted_sum([parent]), atol=1e-5)


@pytest.mark.parametrize("method", GENERAL)
def test_a_negative_weight_negates_the_update(method: str) -> None:
    (parent,) = some((4,), (0.7,))
    combine = MERGE_METHODS[method].combine
    A, B = combine([parent], OPTIONS, "m")
    negated_A, negated_B = combine([replace(parent, weight=-0.7)], OPTIONS, "m")
    if MERGE_METHODS[method].dense:
        assert torch.allclose(delta((negated_A, negated_B)), -delta((A, B)), atol=1e-5)
    elif method == "concat":  # A is the adapters' own
        assert torch.equal(negated_A, A)
        assert torch.equal(negated_B, -B)
    else:
        assert torch.equal(negated_A, -A)
        assert torch.equal(negated_B, B)


@pytest.mark.parametrize("method", [name for name in GENERAL if name != "safemerge"])
def test_an_adapter_of_weight_zero_is_not_there_unless_it_votes(method: str) -> None:
    first, second = some((4, 4), (0.7, 0.0))
    if "majority_sign" in MERGE_METHODS[method].uses:
        second = replace(second, A=torch.zeros_like(second.A), B=torch.zeros_like(second.B))
    combine = MERGE_METHODS[method].combine
    both_of_them = delta(combine([first, second], OPTIONS, "m"))
    assert torch.allclose(both_of_them, delta(combine([first], OPTIONS, "m")), atol=1e-5)


sizes = st.integers(1, 20)
adapters = st.lists(
    st.tuples(st.integers(1, 8), st.floats(-2, 2), st.floats(0.01, 8)), min_size=1, max_size=4
)


@settings(deadline=None)
@given(adapters, sizes, sizes, st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 99))
def test_concat_and_svd_of_full_rank_are_the_weighted_sum(
    terms: list[tuple[int, float, float]], d_in: int, d_out: int, sparsity: float, seed: int
) -> None:
    ranks, weights, scalings = zip(*terms, strict=True)
    parents = [
        replace(p, scaling=scaling)
        for p, scaling in zip(
            some(ranks, weights, (d_in, d_out), sparsity, seed), scalings, strict=True
        )
    ]
    expected = weighted_sum(parents)
    for method, options in [("concat", Options()), ("svd", Options(rank=64))]:
        A, B = MERGE_METHODS[method].combine(parents, options, "m")
        rank = MERGE_METHODS[method].rank(ranks, (d_in, d_out), options)
        assert (A.shape, B.shape) == ((rank, d_in), (d_out, rank))
        assert torch.allclose(delta((A, B)), expected, rtol=1e-5, atol=1e-4)


def test_concat_stacks_a_unchanged_and_its_order_does_not_change_the_update() -> None:
    parents = some((2, 5, 3))
    A, B = MERGE_METHODS["concat"].combine(parents, OPTIONS, "m")
    assert torch.equal(A, torch.cat([p.A for p in parents]))
    assert MERGE_METHODS["concat"].stacks
    backward = MERGE_METHODS["concat"].combine(parents[::-1], OPTIONS, "m")
    assert torch.allclose(delta(backward), delta((A, B)), atol=1e-12)
    without = [replace(p, A=p.A[:, :0]) for p in parents]
    A, without_B = MERGE_METHODS["concat"].combine(without, OPTIONS, "m")
    assert A.shape == (10, 0)
    assert torch.equal(without_B, B)


@pytest.mark.parametrize("size", [(12, 10), (10, 12), (3, 9)])
@pytest.mark.parametrize("rank", [1, 3, 7, 64])
def test_svd_is_the_best_approximation_of_its_rank(size: tuple[int, int], rank: int) -> None:
    parents = some((2, 3, 1), (0.4, -0.7, 1.2), size)
    expected = best(weighted_sum(parents), rank)
    svd = MERGE_METHODS["svd"].combine(parents, Options(rank=rank), "m")
    pruned = MERGE_METHODS["magnitude_prune_svd"].combine(parents, Options(1.0, rank), "m")
    for A, B in (svd, pruned):
        assert torch.allclose(delta((A, B)), expected, atol=1e-5)
        strengths = A.norm(dim=1) * B.norm(dim=0)
        assert torch.all(strengths[1:] <= strengths[:-1] + 1e-5), "the strongest come first"


@pytest.mark.parametrize("method", GENERAL)
@pytest.mark.parametrize("ranks", [(4, 4), (2, 8)])
@pytest.mark.parametrize("size", [(12, 10), (3, 9)])
@pytest.mark.parametrize("rank", [None, 1, 11])
def test_the_result_is_of_the_rank_foretold_and_repeats(
    method: str, ranks: tuple[int, int], size: tuple[int, int], rank: int | None
) -> None:
    parents = some(ranks, (0.4, -0.7), size)
    options = replace(OPTIONS, rank=rank)
    before = [(p.A.clone(), p.B.clone()) for p in parents]
    A, B = MERGE_METHODS[method].combine(parents, options, "m")
    assert (A.shape[0], B.shape[1]) == (MERGE_METHODS[method].rank(ranks, size, options),) * 2
    assert (A.shape[1], B.shape[0]) == size
    for tensor in (A, B):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
    again = MERGE_METHODS[method].combine(parents, options, "m")
    assert all(map(torch.equal, (A, B), again))
    for parent, (old_A, old_B) in zip(parents, before, strict=True):
        assert torch.equal(parent.A, old_A)
        assert torch.equal(parent.B, old_B)


def test_ranks_are_foretold() -> None:
    def ranks(of: tuple[int, ...], size: tuple[int, int], rank: int | None) -> dict[str, int]:
        return {name: m.rank(of, size, Options(0.5, rank)) for name, m in GENERAL.items()}

    wide = ranks((2, 8), (64, 64), None)
    full = {"concat", "safemerge", *SHARED}
    assert {wide[name] for name in full} == {10}
    assert {wide[name] for name in GENERAL if name not in full} == {8}
    assert {ranks((2, 8), (64, 64), 4)[name] for name in SHARED} == {4}
    assert {ranks((2, 8), (9, 64), rank)[name] for name in SHARED for rank in (None, 32)} == {9}
    cut = ranks((2, 8), (64, 64), 32)
    assert (cut["linear"], cut["svd"], cut["ties_svd"]) == (8, 10, 32)
    assert {ranks((2, 8), (3, 64), 32)[name] for name in ("svd", "ties_svd")} == {3}


@pytest.mark.parametrize("method", [name for name in GENERAL if name != "safemerge"])
def test_a_result_depends_on_the_options_it_says(method: str) -> None:
    parents = some((4, 4, 4, 4), (0.4, -0.7, 1.2, 1.0))
    known = MERGE_METHODS[method]
    base = delta(known.combine(parents, OPTIONS, "m"))
    others: dict[str, Any] = {"density": 0.3, "rank": 2, "majority_sign": "frequency", "seed": 4}
    changed = {
        name
        for name, value in others.items()
        if not torch.allclose(
            delta(known.combine(parents, replace(OPTIONS, **{name: value}), "m")), base
        )
    }
    assert changed == set(known.uses) == set(OPTIONS.used_by(method))
    assert known.needs_density == ("density" in changed)
    assert known.random == ("dare" in method or method == "della") == ("seed" in changed)
    assert known.dense == (method.endswith("svd") or method in SHARED)
    assert known.label
    assert known.about


@pytest.mark.parametrize("method", BY_FACTOR)
def test_no_entry_of_b_wakes_up_where_all_are_zero(method: str) -> None:
    parents = some((2, 5, 3), sparsity=0.8)
    _, B = MERGE_METHODS[method].combine(parents, OPTIONS, "m")
    alive = torch.zeros(10, 5, dtype=torch.bool)
    for parent in parents:
        alive[:, : parent.rank] |= parent.B != 0
    assert not B[~alive].any()


def test_the_largest_are_kept_by_count_and_equal_ones_by_position() -> None:
    values = torch.tensor([[3.0, -5.0, 1.0], [-3.0, 3.0, 0.0]])
    kept = [merge_methods.keep_largest(values, Options(d), "") for d in (0.1, 0.17, 0.5, 0.67, 1)]
    assert [k.tolist() for k in kept] == [
        [[0, 0, 0], [0, 0, 0]],
        [[0, -5, 0], [0, 0, 0]],
        [[3, -5, 0], [-3, 0, 0]],
        [[3, -5, 0], [-3, 3, 0]],
        values.tolist(),
    ]
    zeros = merge_methods.keep_largest(torch.zeros(4, 5), Options(0.5), "")
    assert torch.equal(zeros, torch.zeros(4, 5))


@given(st.integers(1, 200), st.floats(0.001, 1), st.integers(0, 3))
def test_the_count_of_kept_entries_is_pefts(count: int, density: float, levels: int) -> None:
    generator = torch.Generator().manual_seed(count)
    values = torch.randint(1, levels + 2, (count,), generator=generator).float()
    kept = merge_methods.keep_largest(values, Options(density), "")
    assert kept.count_nonzero() == int(density * count)
    dropped = values[kept == 0]
    if kept.any() and dropped.numel():
        assert kept[kept > 0].min() >= dropped.max()


def test_drops_are_a_function_of_seed_adapter_side_and_module() -> None:
    ones = torch.ones(4, 8)

    def dropped(seed: int = 3, index: int = 0, side: str = "A", module: str = "m") -> Tensor:
        stream = some()[index].stream(side, module)
        return merge_methods.drop_at_random(ones, Options(density=0.5, seed=seed), stream)

    first = dropped()
    assert (first / 2).int().tolist() == [
        [0, 1, 0, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 1, 1],
        [0, 1, 0, 0, 1, 1, 0, 0],
        [1, 0, 1, 0, 1, 0, 1, 1],
    ]
    others = [dropped(seed=4), dropped(index=1), dropped(side="B"), dropped(module="n")]
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(first, dropped())


def test_drops_are_the_documented_ones() -> None:
    """By whole numbers alone, as the docstring says."""
    digest = hashlib.sha256(b"lori-drop/1\n3\n0\nA\nm").digest()
    key = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little"))
    halves = [h for word in islice(documented.philox(*key), 8) for h in (word % 2**32, word >> 32)]
    dropped = merge_methods.drop_at_random(torch.ones(3, 5), Options(0.3, seed=3), "0\nA\nm")
    assert (dropped.reshape(-1) != 0).tolist() == [half < 0.3 * 2**32 for half in halves[:15]]


def test_drops_keep_the_share_and_the_mean() -> None:
    ones = torch.ones(400, 500)
    for density in (0.05, 0.3, 0.7):
        kept = merge_methods.drop_at_random(ones, Options(density), "x")
        assert set(kept.unique().tolist()) == {0, float(torch.tensor(1.0) / density)}
        assert float(kept.mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(merge_methods.drop_at_random(ones, Options(1.0), "x"), ones)


def test_the_majority_is_by_sum_or_by_count_and_does_not_see_the_weights() -> None:
    tensors = [
        torch.tensor([3.0, -1.0, 2.0, 0.0, 1.0]),
        torch.tensor([-1.0, -1.0, -2.0, 0.0, 0.0]),
        torch.tensor([-1.0, 4.0, 0.0, 0.0, 2.0]),
    ]
    terms = list(zip(tensors, (1.0, 10.0, -100.0), strict=True))
    by_sum = majority_mean(terms, Options())
    by_count = majority_mean(terms, Options(majority_sign="frequency"))
    assert by_sum.tolist() == [3, -400, 2, 0, -99.5]
    assert by_count.tolist() == [45, -5.5, 2, 0, -99.5]


def test_options_that_do_not_fit_are_refused() -> None:
    def refused(method: str, options: Options, match: str) -> None:
        with pytest.raises(InputError, match=match):
            check_options(method, options)

    refused("tie", OPTIONS, r"merge method 'tie' is unknown; did you mean 'ties'\? ")
    for name, method in MERGE_METHODS.items():
        check_options(name, OPTIONS)
        if method.needs_density:
            refused(name, Options(), f"{name} needs a density: the share of entries to keep")
            with pytest.raises(InputError, match="density: a number in"):
                method.combine(some(), Options(), "m")
        else:
            check_options(name, Options())
    for density in (0.0, -0.5, 1.5, math.nan):
        refused("ties", Options(density), r"density: .* is outside \(0, 1\]")
    for rank in (0, -1):
        refused("svd", Options(rank=rank), f"rank: expected .* at least 1, got {rank}")
    refused("linear", Options(majority_sign="most"), "majority_sign 'most' is unknown")


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused(weight: float) -> None:
    with pytest.raises(
        InputError, match=r"adapter 2: weight (nan|inf) times scaling 1\.0 is not a"
    ):
        Factors(torch.ones(1, 1), torch.ones(1, 1), weight, 1.0, 2)
