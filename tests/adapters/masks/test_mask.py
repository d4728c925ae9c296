from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lori_core.adapters.masks.mask import Mask, kept_count, magnitude, overlap, scope_of, top, union
from lori_core.adapters.masks.mask_choices import block_of, layer_of, projection_of
from lori_core.core.errors import AdapterError, InputError
from lori_core.registries.mask import MASK_SCOPES

NAMES = [
    f"model.layers.{layer}.{block}.{name}"
    for layer in range(2)
    for block, name in [("self_attn", "q_proj"), ("self_attn", "o_proj"), ("mlp", "up_proj")]
]


def scores(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(6 + index, 4, generator=generator) for index, name in enumerate(NAMES)}


def test_counts_are_exact_where_floats_are_not() -> None:
    assert kept_count(44_040_192, Decimal("0.9")) == 4_404_020
    assert kept_count(10, Decimal("0.7")) == 3
    assert kept_count(1000, Decimal("0.999")) == 1
    assert kept_count(7, Decimal(0)) == 7


@pytest.mark.parametrize("sparsity", ["1", "-0.1", "1.5"])
def test_a_sparsity_outside_its_range_is_refused(sparsity: str) -> None:
    with pytest.raises(InputError, match=r"outside \[0, 1\)"):
        kept_count(10, Decimal(sparsity))


@pytest.mark.parametrize("scope", MASK_SCOPES)
def test_each_group_of_a_scope_keeps_its_exact_count_of_the_largest(scope: str) -> None:
    values = scores()
    mask, threshold = top(values, Decimal("0.7"), scope)
    flat = torch.cat([v.reshape(-1) for v in values.values()]).numpy()
    groups: dict[str, list[int]] = {}
    position = 0
    for name, matrix in values.items():
        places = range(position, position + matrix.numel())
        groups.setdefault(scope_of(scope, name), []).extend(places)
        position += matrix.numel()
    smallest = []
    for places in groups.values():
        kept = [p for p in places if mask.flat[p]]
        dropped = [p for p in places if not mask.flat[p]]
        assert len(kept) == kept_count(len(places), Decimal("0.7"))
        assert flat[kept].min() > flat[dropped].max()
        smallest.append(flat[kept].min())
    assert threshold == pytest.approx(min(smallest))


def test_ties_go_to_the_first_positions_and_zeros_keep_no_more_than_their_share() -> None:
    mask, threshold = top({"a": torch.zeros(4, 5), "b": torch.zeros(2, 5)}, Decimal("0.9"), "model")
    assert mask.flat.nonzero()[0].tolist() == [0, 1, 2]
    assert threshold == 0
    tied = {"a": torch.tensor([[1.0, 2.0], [2.0, 2.0]])}
    assert top(tied, Decimal("0.5"), "model")[0].flat.tolist() == [False, True, True, False]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.decimals(0, "0.999", places=3),
    st.integers(0, 3),
)
def test_counts_hold_for_any_shapes(rows: list[int], sparsity: Decimal, levels: int) -> None:
    generator = torch.Generator().manual_seed(7)
    values = {
        f"m{i}": torch.randint(0, levels + 1, (row, 3), generator=generator).float()
        for i, row in enumerate(rows)
    }
    mask, _ = top(values, sparsity, "model")
    assert mask.count == int(mask.flat.sum()) == kept_count(3 * sum(rows), sparsity)


def test_names_are_read_for_scopes() -> None:
    assert layer_of("model.layers.11.self_attn.q_proj") == "11"
    assert layer_of("lm_head") == "-"
    assert block_of("transformer.h.0.attn.c_proj") == "attention"
    assert block_of("transformer.h.0.mlp.c_proj") == "mlp"
    assert projection_of("model.layers.0.mlp.up_proj") == "up_proj"
    with pytest.raises(InputError, match=r"mask scope 'layers' is unknown; did you mean 'layer'"):
        scope_of("layers", "x")


def slow_top(values: dict[str, torch.Tensor], sparsity: Decimal, scope: str) -> list[bool]:
    """Sort each group by falling score, then position, and keep the first."""
    groups: dict[str, list[tuple[float, int]]] = {}
    position = 0
    for name, matrix in values.items():
        for value in matrix.reshape(-1).tolist():
            groups.setdefault(scope_of(scope, name), []).append((-value, position))
            position += 1
    kept = [False] * position
    for entries in groups.values():
        for _, place in sorted(entries)[: kept_count(len(entries), sparsity)]:
            kept[place] = True
    return kept


@given(st.data(), st.sampled_from(list(MASK_SCOPES)), st.decimals(0, "0.999", places=3))
def test_the_mask_is_that_of_a_sort(data: st.DataObject, scope: str, sparsity: Decimal) -> None:
    # Neighbouring floats, ties, zeros of both signs and the ends of the range.
    near = [1.0, float(np.nextafter(np.float32(1), np.float32(2))), float(np.float32(1 + 2**-7))]
    score = st.sampled_from([0.0, -0.0, *near, 1e-45, 3.4e38]) | st.floats(0, 9, width=32)
    values = {
        name: torch.tensor(
            data.draw(st.lists(st.lists(score, min_size=3, max_size=3), min_size=1, max_size=4))
        )
        for name in NAMES
    }
    mask, threshold = top(values, sparsity, scope)
    assert mask.flat.tolist() == slow_top(values, sparsity, scope)
    flat = torch.cat([matrix.reshape(-1) for matrix in values.values()])
    assert threshold == flat[torch.from_numpy(mask.flat)].min()


@pytest.mark.parametrize("scope", MASK_SCOPES)
@pytest.mark.parametrize("level", [0.0, 2.5])
def test_equal_scores_keep_the_first_of_each_group(scope: str, level: float) -> None:
    values = {name: torch.full((5 + i, 3), level) for i, name in enumerate(NAMES)}
    mask, threshold = top(values, Decimal("0.9"), scope)
    assert mask.flat.tolist() == slow_top(values, Decimal("0.9"), scope)
    assert threshold == level


def test_ties_are_counted_on_from_one_chunk_to_the_next() -> None:
    size = 3 * 2**18 + 5
    values = {"a": torch.ones(size, 1)}
    values["a"][7::2] = 2
    above = (size - 7 + 1) // 2
    mask, threshold = top(values, Decimal(1) - Decimal(above + 300_000) / size, "model")
    expected = values["a"].reshape(-1) == 2
    expected[torch.nonzero(~expected).reshape(-1)[: mask.count - above]] = True
    assert mask.count in (above + 300_000, above + 300_001)
    assert torch.equal(torch.from_numpy(mask.flat), expected)
    assert threshold == 1


def test_an_8b_model_keeps_its_exact_count() -> None:
    d_out = {"q": 4096, "k": 1024, "v": 1024, "o": 4096, "gate": 14336, "up": 14336, "down": 4096}
    names = [
        (f"layers.{layer}.{name}_proj", rows) for layer in range(32) for name, rows in d_out.items()
    ]
    flat = torch.rand(44_040_192, generator=torch.Generator().manual_seed(0))
    parts = flat.split([rows * 32 for _, rows in names])
    values = {name: part.view(-1, 32) for (name, _), part in zip(names, parts, strict=True)}
    mask, threshold = top(values, Decimal("0.9"), "model")
    scores = flat.numpy()
    above, equal = scores > threshold, np.flatnonzero(scores == np.float32(threshold))
    assert (mask.total, mask.count) == (44_040_192, 4_404_020)
    assert equal.size > 1, "ties are part of what is tested"
    left = mask.count - int(np.count_nonzero(above))
    assert 0 < left <= equal.size
    above[equal[:left]] = True
    assert np.array_equal(mask.bits, np.packbits(above))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_of_other_dtypes_are_taken_by_value(dtype: torch.dtype) -> None:
    values = {name: matrix.to(dtype) for name, matrix in scores().items()}
    mask, _ = top(values, Decimal("0.7"), "model")
    assert mask.flat.tolist() == slow_top(values, Decimal("0.7"), "model")


def test_scores_are_left_as_they_were_and_need_not_lie_in_order() -> None:
    matrix = torch.tensor([[-0.0, 3.0], [1.0, 2.0]], requires_grad=True)
    mask, _ = top({"a": matrix.T}, Decimal("0.5"), "model")
    assert mask.flat.tolist() == [False, False, True, True]
    assert torch.signbit(matrix).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf"), 1e39])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    values = {"a": torch.ones(1, 2), "b": torch.tensor([[bad, 1.0]], dtype=torch.float64)}
    with pytest.raises(
        InputError, match=r"^importance scores of b hold values that are not finite"
    ):
        top(values, Decimal("0.5"), "model")


def test_a_signalling_nan_is_refused_like_the_others() -> None:
    value = torch.from_numpy(np.array([[0x7F80_0001]], dtype=np.uint32).view(np.float32))
    with pytest.raises(InputError, match="not finite"):
        top({"a": value}, Decimal(0), "model")


@pytest.mark.parametrize("bad", [-1.0, -1e-45, -3e38])
def test_scores_below_zero_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match=r"^importance scores of a hold values below zero; give"):
        top({"a": torch.tensor([[1.0, bad]])}, Decimal("0.5"), "model")


@pytest.mark.parametrize("values", [{}, {"a": torch.ones(2, 2), "b": torch.ones(0, 2)}])
def test_no_scores_are_refused(values: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError, match="importance scores are empty"):
        top(values, Decimal("0.5"), "model")


def test_positions_index_each_module_alone() -> None:
    values = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([[0.0, 4.0], [5.0, 0.0]])}
    mask, _ = top(values, Decimal("0.5"), "model")
    assert {name: p.tolist() for name, p in mask.positions().items()} == {"a": [0], "b": [1, 2]}
    assert mask.density_by("matrix") == {"a": 0.5, "b": 0.5}


def test_overlap_and_union_count_entries() -> None:
    first = Mask.from_flat({"a": (2, 4)}, np.array([1, 1, 0, 0, 1, 0, 0, 0], dtype=bool))
    second = Mask.from_flat({"a": (2, 4)}, np.array([1, 0, 0, 0, 1, 1, 0, 0], dtype=bool))
    assert overlap(first, second) == 2 / 8
    assert union(first, second).count == 4
    with pytest.raises(AdapterError, match=r"module a: mask has \(4, 2\), model has \(2, 4\)"):
        overlap(first, Mask.from_flat({"a": (4, 2)}, np.zeros(8, dtype=bool)))


def test_independent_masks_overlap_as_expected() -> None:
    big = [{"m": torch.rand(400, 500, generator=torch.Generator().manual_seed(s))} for s in (1, 2)]
    masks = [top(values, Decimal("0.9"), "model")[0] for values in big]
    assert overlap(*masks) == pytest.approx(0.01, abs=0.001)


def test_magnitude_is_the_absolute_value() -> None:
    assert magnitude({"a": torch.tensor([[-2.0, 1.0]])})["a"].tolist() == [[2.0, 1.0]]


SHAPES = {"a": (3, 3), "b": (1, 2), "c": (5, 5), "d": (2, 8)}


@given(st.lists(st.booleans(), min_size=52, max_size=52))
def test_modules_that_are_no_whole_bytes_are_found_in_the_bits(flat: list[bool]) -> None:
    mask = Mask.from_flat(SHAPES, np.array(flat))
    parts = [flat[:9], flat[9:11], flat[11:36], flat[36:]]
    for name, part in zip(SHAPES, parts, strict=True):
        assert mask.of(name).dtype == bool
        assert mask.of(name).tolist() == part
        assert mask.positions()[name].dtype == torch.int64
        assert mask.positions()[name].tolist() == [i for i, kept in enumerate(part) if kept]
    assert mask.starts == {"a": 0, "b": 9, "c": 11, "d": 36}
    assert mask.counts == dict(zip(SHAPES, map(sum, parts), strict=True))
    assert "flat" not in vars(mask), "the whole mask as booleans is not needed for this"
    arrays = [
        np.array(part).reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)
    ]
    again = Mask.from_parts(SHAPES, iter(arrays))
    assert again.bits.tobytes() == mask.bits.tobytes()
    assert again.flat.tolist() == flat


def test_parts_that_do_not_fit_the_shapes_are_refused() -> None:
    parts = [np.ones(size, dtype=bool) for size in (9, 2, 25, 16)]
    with pytest.raises(ValueError, match=r"b: 3 booleans for a B of \[1, 2\]"):
        Mask.from_parts(SHAPES, [parts[0], np.ones(3, dtype=bool), *parts[2:]])
    with pytest.raises(ValueError, match="shorter"):
        Mask.from_parts(SHAPES, parts[:3])
    with pytest.raises(ValueError, match="longer"):
        Mask.from_parts(SHAPES, [*parts, parts[0]])


def test_masks_over_the_same_modules_in_another_order_are_refused() -> None:
    bits = np.zeros(1, dtype=np.uint8)
    first, second = Mask({"a": (1, 2), "b": (1, 4)}, bits), Mask({"b": (1, 4), "a": (1, 2)}, bits)
    with pytest.raises(AdapterError, match="another order"):
        union(first, second)
