from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lori_core.adapters import attach
from lori_core.data.batching import collate
from lori_core.data.prompts import Encoded
from lori_core.models import peft_names
from lori_core.training.kernels import lora_linear
from lori_core.training.loss import example_losses
from support import TARGETS, random_adapter, tiny

BATCH = [Encoded([7, 8, 9, 10], [11, 12], False), Encoded([3], [4, 5, 6, 7, 8], False)]


def adapted(
    architecture: str = "llama", dtype: torch.dtype = torch.float64, masked: bool = True
) -> Any:
    """Return a model with a trainable adapter that is not zero."""
    adapter = random_adapter(architecture)
    assert adapter.mask is not None
    model = tiny(architecture)[0].to(dtype)
    model = attach.attach(model, adapter.modules, adapter.A)
    positions = adapter.mask.positions() if masked else None
    B = {name: adapter.B(name) for name in adapter.modules}
    attach.make_trainable(model, positions, B)
    return model.eval()


def losses_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    losses = example_losses(model, collate(BATCH, 259))
    (losses * torch.tensor([1.0, 3.0])).sum().backward()
    return losses.detach(), {
        name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad
    }


def same(found: Any, expected: Any, tolerance: float) -> None:
    assert torch.allclose(found[0], expected[0], rtol=tolerance)
    assert list(found[1]) == list(expected[1])
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("masked", [True, False])
def test_losses_and_gradients_are_those_of_peft_s_own_forward(
    architecture: str, masked: bool
) -> None:
    model = adapted(architecture, masked=masked)
    expected = losses_and_gradients(model)
    with lora_linear.installed(model) as left:
        assert left == ({"a Conv1D is not a plain nn.Linear": 8} if architecture == "gpt2" else {})
        found = losses_and_gradients(model)
    same(found, expected, 1e-6)  # the models' norms are float32 whatever the rest is


def test_adding_the_update_to_the_weights_first_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = adapted(dtype=torch.float32)
    expected = losses_and_gradients(model)
    for factor, merges in ((1e9, False), (0, True)):
        monkeypatch.setattr(lora_linear, "MERGED_FROM", factor)
        with lora_linear.installed(model):
            layer = next(iter(peft_names.lora_layers(model).values()))
            assert lora_linear._FrozenLayers([layer]).merges(5) is merges
            same(losses_and_gradients(model), expected, 2e-5)


def test_half_precision_is_never_added_to_the_weights() -> None:
    model = adapted(dtype=torch.bfloat16)
    layer = next(iter(peft_names.lora_layers(model).values()))
    assert not lora_linear._FrozenLayers([layer]).merges(10**9)
    expected = losses_and_gradients(model)
    with lora_linear.installed(model):
        same(losses_and_gradients(model), expected, 0.1)


def test_maps_of_one_input_are_computed_together() -> None:
    names = ["a.q_proj", "a.k_proj", "a.o_proj", "m.gate_proj", "m.up_proj", "m.down_proj"]
    assert lora_linear._grouped([*names, "b.q_proj"]) == [
        ["a.q_proj", "a.k_proj"], ["a.o_proj"], ["m.gate_proj", "m.up_proj"], ["m.down_proj"],
        ["b.q_proj"],
    ]  # fmt: skip


def test_a_map_that_is_called_alone_or_twice_gives_its_own_output() -> None:
    model = adapted()
    layers = peft_names.lora_layers(model)
    q, k = (layers[f"model.layers.0.self_attn.{name}_proj"] for name in "qk")
    one, two = torch.randn(2, 3, 64, dtype=torch.float64).unbind()
    expected = [q(one), k(two), q(two), q(two), k(one)]
    with lora_linear.installed(model):
        found = [q(one), k(two), q(two), q(two), k(one)]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_input_is_not_kept_for_the_gradient() -> None:
    model = adapted()
    layer = peft_names.lora_layers(model)["model.layers.0.mlp.down_proj"]
    x = torch.randn(50, 128, dtype=torch.float64, requires_grad=True)
    kept: list[torch.Size] = []
    with (
        lora_linear.installed(model),
        torch.autograd.graph.saved_tensors_hooks(
            lambda saved: kept.append(saved.shape) or saved, lambda saved: saved
        ),
    ):
        layer(x)
    assert torch.Size([50, 4]) in kept
    assert torch.Size([50, 128]) not in kept


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "more than B is trained"),
        ({"use_dora": True}, "a variant of LoRA, or several"),
        ({"lora_dropout": 0.1}, "dropout"),
    ],
)
def test_other_methods_keep_peft_s_own_forward(options: dict[str, Any], reason: str) -> None:
    targets = list(TARGETS["llama"])
    model = get_peft_model(tiny("llama")[0], LoraConfig(r=4, target_modules=targets, **options))
    layers = peft_names.lora_layers(model)
    with lora_linear.installed(model) as left:
        assert left == {reason: len(layers)}
        assert not any("forward" in vars(layer) for layer in layers.values())


def test_layers_are_as_they_were_afterwards() -> None:
    model = adapted()
    layers = peft_names.lora_layers(model).values()
    with lora_linear.installed(model):
        assert all("forward" in vars(layer) for layer in layers)
    assert not any("forward" in vars(layer) for layer in layers)
