from dataclasses import replace

import pytest
import torch

from lori_core.adapters.adapter import (
    Adapter,
    LayerSpec,
    check_base,
    check_one_base,
    draw,
    same_base,
    values_in_mask,
)
from lori_core.core.errors import AdapterError
from lori_core.models.base_identity import BaseIdentity
from support import random_adapter, tiny


def test_values_outside_the_mask_are_refused() -> None:
    adapter = random_adapter()
    full = {name: torch.ones(shape) for name, shape in adapter.shapes.items()}
    with pytest.raises(AdapterError, match=r"q_proj: B has entries .* outside its mask"):
        values_in_mask(adapter.modules, full, adapter.mask, torch.float32)


def test_packing_is_what_b_undoes() -> None:
    adapter = random_adapter()
    B = {name: adapter.B(name) for name in adapter.modules}
    again = values_in_mask(adapter.modules, B, adapter.mask, torch.float32)
    for name in adapter.modules:
        assert torch.equal(again[name], adapter.values[name])
    assert adapter.count == sum(values.numel() for values in again.values())


def test_scaling_is_alpha_over_rank_or_over_its_root() -> None:
    adapter = random_adapter(rank=4, alpha=6)
    (name, *_) = adapter.modules
    assert adapter.scaling(name) == 1.5
    assert replace(adapter, use_rslora=True).scaling(name) == 3.0
    assert adapter.delta(name).equal(1.5 * (adapter.B(name) @ adapter.A(name)))


def test_a_is_the_blocks_stacked() -> None:
    first, second = random_adapter(key="math").blocks + random_adapter(key="code").blocks
    stacked = draw((first, second), "layers.0.q_proj", 8)
    assert stacked.shape == (8, 8)
    assert torch.equal(stacked[4:], draw((second,), "layers.0.q_proj", 8))


def test_another_base_is_refused() -> None:
    adapter = random_adapter("llama")
    _, _, other = tiny("mistral")
    with pytest.raises(AdapterError, match="whose config differ"):
        check_base(adapter, other, "here")
    check_base(adapter, adapter.base, "here")


def test_a_base_known_by_name_only_is_compared_by_name() -> None:
    known = BaseIdentity("llama", "", "c", "w")
    assert same_base(known, BaseIdentity("renamed", "", "c", "w"))
    assert not same_base(known, BaseIdentity("llama", "", "c", "other"))
    assert same_base(known, BaseIdentity("llama", "", "", ""))
    assert not same_base(known, BaseIdentity("mistral", "", "", ""))


def test_a_base_that_is_only_named_is_taken_by_its_name_or_at_somebodys_word() -> None:
    adapter = random_adapter("llama")
    here = adapter.base

    def naming(name: str) -> Adapter:
        return replace(adapter, base=BaseIdentity(name, "", "", ""))

    check_base(naming("random:llama"), here, "here")
    with pytest.raises(AdapterError, match="here: names the base 'x/y', and nothing proves"):
        check_base(naming("x/y"), here, "here")
    with pytest.raises(AdapterError, match=r"here: does not say which base .* with --base"):
        check_base(naming(""), here, "here")
    check_base(naming("x/y"), here, "here", vouched=True)
    with pytest.raises(AdapterError, match="whose config differ"):
        check_base(adapter, tiny("mistral")[2], "here", vouched=True)


def test_adapters_of_one_base_are_linked_by_content_or_name() -> None:
    known = random_adapter("llama")
    moved = replace(known, base=replace(known.base, name="/moved"))

    def naming(name: str) -> Adapter:
        return replace(known, base=BaseIdentity(name, "", "", ""))

    check_one_base({"a": known, "b": moved, "c": naming("/moved"), "d": naming("random:llama")})
    check_one_base({"a": naming(""), "b": naming("")})
    for other in ("x/y", ""):
        with pytest.raises(AdapterError, match="a and c may be adapters of different base models"):
            check_one_base({"a": known, "b": moved, "c": naming(other)})
    with pytest.raises(AdapterError, match="b and c were made for different base models"):
        check_one_base({"a": naming("x/y"), "b": known, "c": random_adapter("mistral")})


def test_the_largest_rank_and_the_targets_are_told() -> None:
    adapter = random_adapter(rank=4)
    (name, *_) = adapter.modules
    modules = {**adapter.modules, name: LayerSpec(64, 64, 9, 1.0)}
    assert replace(adapter, modules=modules).rank == 9
    assert adapter.targets[:2] == ["down_proj", "gate_proj"]
    assert replace(adapter, matched_by=("x",)).targets == ["x"]
