from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lori_core.adapters import attach
from lori_core.data.batching import collate
from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded
from lori_core.training.kernels import packed_attention
from lori_core.training.loss import example_losses
from support import random_adapter, tiny

PAD = 259


def batch() -> list[Encoded]:
    """Return examples of unlike lengths: some with one beginning, one prompt, or all in common."""
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(0, 256, (count,), generator=generator).tolist()

    start, prompt = ids(5), ids(7)
    rows = [Encoded(start + ids(n), ids(4), False) for n in (3, 9, 1)]
    rows += [Encoded(prompt, ids(n), False) for n in (2, 5)]
    rows += [Encoded(start + ids(2), ids(8), False, frozenset({2, 3, 7}))]
    return [*rows, Encoded(ids(20), ids(1), False), rows[1]]


def adapted(architecture: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return a model with a trainable adapter that is not zero, in evaluation mode."""
    adapter = random_adapter(architecture)
    model = attach.attach(tiny(architecture)[0], adapter.modules, adapter.A)
    attach.make_trainable(model, None, {name: adapter.B(name) for name in adapter.modules})
    return model.to(dtype).eval()


def losses_and_gradients(model: Any, inputs: Any, is_packed: bool) -> tuple[Any, Any]:
    model.zero_grad()
    base = model.get_base_model()
    if is_packed:
        with packed_attention.attending(base):
            losses = example_losses(model, inputs)
            (losses * torch.arange(1, len(losses) + 1)).sum().backward()
    else:
        losses = example_losses(model, inputs)
        (losses * torch.arange(1, len(losses) + 1)).sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    return losses.detach(), found


@pytest.mark.parametrize("share", [True, False])
def test_packed_and_padded_batches_have_the_same_losses_and_gradients(
    architecture: str, share: bool
) -> None:
    model = adapted(architecture, torch.float64)
    for layer in attach.peft_names.lora_layers(model).values():
        layer.lora_B["default"].parametrizations["weight"][0].dtype = torch.float64
    rows = batch()
    expected, gradients = losses_and_gradients(model, collate(rows, PAD), False)
    found, ours = losses_and_gradients(model, pack_batch(rows, share), True)
    assert torch.allclose(found, expected, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        # The models' norms and the losses are float32 whatever the rest is.
        assert (ours[name] - gradient).norm() < 1e-5 * gradient.norm(), name


def test_a_sliding_window_hides_what_is_further_back() -> None:
    config = AutoConfig.for_model(
        "mistral", vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    rows = batch()
    with torch.no_grad():
        expected = example_losses(model, collate(rows, PAD))
        with packed_attention.attending(model):
            found = example_losses(model, pack_batch(rows))
    assert torch.allclose(found, expected, rtol=1e-5)


def test_a_model_is_tried_before_it_is_packed(architecture: str) -> None:
    model, _, _ = tiny(architecture)
    assert packed_attention.unsupported_reason(model) is None
    assert model.config._attn_implementation == "sdpa"


def test_a_recurrent_model_does_not_suit() -> None:
    config = AutoConfig.for_model(
        "mamba", vocab_size=32, hidden_size=16, state_size=4, num_hidden_layers=1
    )
    model = AutoModelForCausalLM.from_config(config)
    assert packed_attention.unsupported_reason(model) is not None


def test_attention_with_capped_scores_does_not_suit() -> None:
    config = AutoConfig.for_model(
        "gemma2", vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    reason = packed_attention.unsupported_reason(model)
    assert reason == "its forward pass refuses them (ValueError)"


def test_gradients_of_shared_beginnings_repeat_exactly() -> None:
    model = adapted("llama")
    inputs = pack_batch(batch() * 8)
    first = losses_and_gradients(model, inputs, True)[1]
    again = losses_and_gradients(model, inputs, True)[1]
    assert all(torch.equal(gradient, again[name]) for name, gradient in first.items())
