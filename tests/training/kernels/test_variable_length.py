"""Variable-length attention: its layout by a reference on the CPU, its operators by shapes."""

from typing import Any

import pytest
import torch
from test_packed_attention import PAD, adapted, batch, losses_and_gradients
from torch import nn

from lori_core.data.batching import collate
from lori_core.data.packing import pack_batch
from lori_core.training import computing
from lori_core.training.kernels import packed_attention, variable_length
from lori_core.training.kernels.reference_attention import ReferenceAttention

STARTS = torch.tensor([0, 5, 12, 13], dtype=torch.int32)


def states(heads: int = 4, key_heads: int = 2, tokens: int = 13) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(tokens, n, 8) for n in (heads, key_heads, key_heads)]
    drawn = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [x.requires_grad_() for x in drawn]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variable_length, "kernel", ReferenceAttention())


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("window", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_attention_is_that_of_each_sequence_alone(window: int | None, key_heads: int) -> None:
    q, k, v = states(key_heads=key_heads)
    out = variable_length.attend(q, k, v, STARTS, 7, 0.3, window)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    ours = torch.autograd.grad((out * slope).sum(), (q, k, v))
    rows = []
    for start, stop in ((0, 5), (5, 12), (12, 13)):
        part = [x[start:stop].transpose(0, 1)[None] for x in (q, k, v)]
        near = torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
        near = near if window is None else near.triu(1 - window)
        alone = nn.functional.scaled_dot_product_attention(*part, near, scale=0.3, enable_gqa=True)
        rows.append(alone[0].transpose(0, 1))
    expected = torch.cat(rows)
    assert torch.allclose(out, expected, atol=1e-12)
    theirs = torch.autograd.grad((expected * slope).sum(), (q, k, v))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("share", [True, False])
def test_places_without_padding_have_the_losses_and_gradients_of_padded_batches(
    architecture: str, share: bool
) -> None:
    model = adapted(architecture, torch.float64)
    for layer in packed_attention_layers(model):
        layer.lora_B["default"].parametrizations["weight"][0].dtype = torch.float64
    rows = batch()
    expected, gradients = losses_and_gradients(model, collate(rows, PAD), False)
    packed = pack_batch(rows, share, padded=False)
    assert packed_attention.Packing.of(packed).one_to_one is (not share)
    found, ours = losses_and_gradients(model, packed, True)
    assert torch.allclose(found, expected, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        assert (ours[name] - gradient).norm() < 1e-5 * gradient.norm(), name


def packed_attention_layers(model: Any) -> Any:
    from lori_core.models import peft_names

    return peft_names.lora_layers(model).values()


@pytest.mark.usefixtures("reference")
def test_models_are_tried_with_the_kernel_before_they_use_it(architecture: str) -> None:
    model = adapted(architecture)
    base = model.get_base_model()
    assert variable_length.unsupported_reason(base) is None
    assert packed_attention.unsupported_reason(base, padded=False) is None
    collate_function, reason = computing._packing(model, base)
    if computing.draws_dropout(model):
        assert "padded" not in collate_function.keywords
    else:
        assert collate_function.keywords["padded"] is False
    assert reason is None


class _Wrong(ReferenceAttention):
    """Attention whose window is one token too wide."""

    def forward(self, q: Any, k: Any, v: Any, *rest: Any) -> tuple[torch.Tensor, ...]:
        *settings, left = rest
        return super().forward(q, k, v, *settings, left + 1 if left >= 0 else left)


def test_a_kernel_with_other_results_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variable_length, "kernel", _Wrong())
    base = adapted("mistral").get_base_model()
    base.config.sliding_window = None
    assert variable_length.unsupported_reason(base) is None
    base.config.sliding_window = 4
    said = "its results are not those of plain attention on this device"
    assert variable_length.unsupported_reason(base) == said


def test_flash_attention_is_not_for_cpus() -> None:
    assert variable_length.unsupported_reason(adapted("llama").get_base_model()) == "it is for GPUs"


def test_the_operators_of_this_torch_take_these_arguments() -> None:
    """Shapes only: on the meta device nothing is computed."""
    q, k, v = (x.detach().to("meta", torch.bfloat16) for x in states())
    starts, flash = STARTS.to("meta"), variable_length.Flash()
    for left in (-1, 3):
        out, *saved = flash.forward(q, k, v, starts, 7, 0.3, left)
        assert out.shape == q.shape
        gradients = flash.backward(out, (q, k, v, out, *saved), starts, 7, 0.3, left)
        assert [g.shape for g in gradients] == [q.shape, k.shape, v.shape]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
