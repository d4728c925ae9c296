from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lori_core import mask_file
from lori_core.errors import AdapterError, InputError
from lori_core.mask import (
    SCOPES,
    Mask,
    block_of,
    kept_count,
    layer_of,
    magnitude,
    overlap,
    projection_of,
    scope_of,
    top,
    union,
)

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


@pytest.mark.parametrize("scope", SCOPES)
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


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        top({"a": torch.tensor([[float("nan"), 1.0]])}, Decimal("0.5"), "model")


def test_positions_index_each_module_alone() -> None:
    values = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([[0.0, 4.0], [5.0, 0.0]])}
    mask, _ = top(values, Decimal("0.5"), "model")
    assert {name: p.tolist() for name, p in mask.positions().items()} == {"a": [0], "b": [1, 2]}
    assert mask.kept_by("matrix") == {"a": 0.5, "b": 0.5}


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


def test_a_mask_file_comes_back_and_a_damaged_one_does_not(tmp_path) -> None:  # type: ignore[no-untyped-def]
    mask, threshold = top(scores(), Decimal("0.9"), "layer")
    path = tmp_path / "mask.safetensors"
    mask_file.save(mask, {"count": mask.count, "threshold": threshold}, path)
    again, facts = mask_file.load(path)
    assert again.shapes == mask.shapes
    assert again.bits.tobytes() == mask.bits.tobytes()
    assert facts == {"count": mask.count, "threshold": threshold}
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(AdapterError, match="damaged"):
        mask_file.load(path)
    path.write_bytes(content[:40])
    with pytest.raises(AdapterError, match="not a safetensors file"):
        mask_file.load(path)
