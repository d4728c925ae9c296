from dataclasses import replace

import pytest
import torch

from lori_core.adapters import attach
from lori_core.adapters.adapter import LayerSpec
from lori_core.core.errors import AdapterError, ConfigError
from lori_core.models import peft_names
from support import random_adapter, tiny

IDS = torch.randint(0, 250, (2, 11), generator=torch.Generator().manual_seed(3))


def test_the_update_is_scaling_times_b_times_a(architecture: str) -> None:
    adapter = random_adapter(architecture)
    model, _, _ = tiny(architecture)
    wrapped = attach.apply_adapter(model, adapter)
    for name, layer in peft_names.lora_layers(wrapped).items():
        delta = layer.get_delta_weight(peft_names.ADAPTER)
        expected = adapter.delta(name)
        if adapter.fan_in_fan_out:  # GPT-2's Conv1D keeps weights the other way round
            delta = delta.T
        assert torch.allclose(delta, expected, atol=1e-6)


def test_ranks_and_scalings_may_differ_by_module() -> None:
    adapter = random_adapter(sparsity=None)
    ranks = {name: 1 + number % 3 for number, name in enumerate(adapter.modules)}
    A, B = ({n: side(n) for n in ranks} for side in (adapter.A, adapter.B))
    mixed = replace(
        adapter,
        modules={
            n: LayerSpec(m.d_in, m.d_out, ranks[n], 0.5 + ranks[n] ** 2)
            for n, m in adapter.modules.items()
        },
        blocks=(),
        stored={n: A[n][: ranks[n]] for n in ranks},
        values={n: B[n][:, : ranks[n]].reshape(-1) for n in ranks},
        use_rslora=True,
    )
    wrapped = attach.apply_adapter(tiny("llama")[0], mixed)
    layers = peft_names.lora_layers(wrapped)
    assert len(layers) == len(ranks)
    for name, layer in layers.items():
        assert layer.scaling[peft_names.ADAPTER] == mixed.scaling(name)
        delta = layer.get_delta_weight(peft_names.ADAPTER)
        assert torch.allclose(delta, mixed.delta(name), atol=1e-6)


def test_an_adapter_of_one_layer_touches_no_other() -> None:
    adapter = random_adapter()
    few = {n: m for n, m in adapter.modules.items() if ".0." in n}
    part = replace(
        adapter, modules=few, mask=None, values={n: adapter.B(n).reshape(-1) for n in few}
    )
    wrapped = attach.apply_adapter(tiny("llama")[0], part)
    assert list(peft_names.lora_layers(wrapped)) == list(few)


def test_taking_it_off_gives_the_base_back() -> None:
    model, _, _ = tiny("llama")
    with torch.no_grad():
        before = model(IDS).logits
        wrapped = attach.apply_adapter(model, random_adapter())
        assert not torch.equal(wrapped(IDS).logits, before)
        assert torch.equal(wrapped.unload()(IDS).logits, before)


def test_a_model_of_other_modules_is_refused() -> None:
    adapter = random_adapter("llama")
    with pytest.raises(AdapterError, match="q_proj: the adapter's is 64 to 64, the model has none"):
        attach.apply_adapter(tiny("gpt2")[0], adapter)
    (name, *_) = adapter.modules
    wide = replace(adapter, modules={name: LayerSpec(65, 64, 4, 8)})
    with pytest.raises(AdapterError, match=r"is 65 to 64, the model has \(64, 64\)"):
        attach.apply_adapter(tiny("llama")[0], wide)


def test_a_target_that_matches_nothing_is_named() -> None:
    model, _, _ = tiny("llama")
    message = r"'q_prj' matches no linear module.*did you mean 'q_proj'"
    with pytest.raises(ConfigError, match=message):
        peft_names.target_shapes(model, ["q_prj"])
