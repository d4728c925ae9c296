"""Updates in the weights give what the adapter's branches give, and the base gets its own back."""

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from lori_core.adapters.attach import apply_adapter
from lori_core.evaluation.inference.in_weights import added_to_weights
from lori_core.models import peft_names
from support import random_adapter, tiny

IDS = torch.tensor([[5, 6, 7, 8], [9, 5, 6, 7]])


def merged(model: Any) -> set[bool]:
    return {layer.merged for layer in peft_names.lora_layers(model).values()}


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=IDS).logits
    return result


def test_outputs_are_those_of_the_branches_and_the_base_is_as_before(architecture: str) -> None:
    base = tiny(architecture)[0].eval()
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    alone = logits(base)
    wrapped = apply_adapter(base, random_adapter(architecture)).eval()
    branches = logits(wrapped)
    assert not torch.allclose(branches, alone, atol=1e-3)
    with added_to_weights(wrapped):
        assert merged(wrapped) == {True}
        assert torch.allclose(logits(wrapped), branches, atol=1e-5)
    assert merged(wrapped) == {False}
    assert torch.equal(logits(wrapped), branches)
    wrapped.unload()
    after = dict(base.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_the_base_is_as_before_after_an_error() -> None:
    base = tiny("llama")[0].eval()
    alone = logits(base)
    wrapped = apply_adapter(base, random_adapter("llama"))
    with pytest.raises(ZeroDivisionError), added_to_weights(wrapped):
        raise ZeroDivisionError
    wrapped.unload()
    assert torch.equal(logits(base), alone)


def test_weights_in_16_bits_keep_their_branches() -> None:
    wrapped = apply_adapter(tiny("llama")[0].to(torch.bfloat16), random_adapter("llama"))
    with added_to_weights(wrapped):
        assert merged(wrapped) == {False}


def test_weights_that_another_module_shares_keep_their_branches() -> None:
    base = tiny("llama")[0]
    shared, other = base.model.layers[0].self_attn, base.model.layers[1].self_attn
    other.q_proj.weight = shared.q_proj.weight
    wrapped = apply_adapter(base, random_adapter("llama"))
    with added_to_weights(wrapped):
        kept = {n for n, layer in peft_names.lora_layers(wrapped).items() if not layer.merged}
    assert kept == {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}


def test_without_room_for_copies_all_keep_their_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = apply_adapter(tiny("llama")[0], random_adapter("llama"))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with added_to_weights(wrapped):
        assert merged(wrapped) == {False}
