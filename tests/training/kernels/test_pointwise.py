"""Norms and gated activations in fewer passes: transformers' numbers, and no other module's."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import GemmaConfig, LlamaConfig
from transformers.models.gemma.modeling_gemma import GemmaMLP, GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from lori_core.training.kernels import pointwise

WIDTH, INNER = 32, 40


def frozen(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Give a module other weights than it begins with, and freeze it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p += torch.randn(p.shape, generator=generator) / 4
    return module.to(dtype).requires_grad_(False)


def norm(dtype: torch.dtype = torch.float32) -> nn.Module:
    return frozen(LlamaRMSNorm(WIDTH), dtype)


def gated(dtype: torch.dtype = torch.float32) -> nn.Module:
    return frozen(LlamaMLP(LlamaConfig(hidden_size=WIDTH, intermediate_size=INNER)), dtype)


def run(module: nn.Module, dtype: torch.dtype, large: float) -> tuple[Tensor, Tensor]:
    """Return what a module gives and the gradient of its input."""
    generator = torch.Generator().manual_seed(0)
    x, slope = torch.randn(2, 2, 5, WIDTH, generator=generator).to(dtype).unbind()
    x = (x * large).requires_grad_()
    y = module(x)
    y.backward(slope)
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("module", [norm(), frozen(Qwen2RMSNorm(WIDTH)), gated()])
@pytest.mark.parametrize("large", [1e-4, 1.0, 100.0])
def test_values_and_gradients_are_the_models_own(module: nn.Module, large: float) -> None:
    expected = run(module, torch.float32, large)
    with pointwise.installed(module) as count:
        assert count == 1
        found = run(module, torch.float32, large)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("made", [norm, gated])
def test_in_half_precision_it_errs_no_more_than_the_models_own(
    made: Callable[..., nn.Module],
) -> None:
    exact = run(made(), torch.float32, 1.0)
    module = made(torch.bfloat16)

    def errors() -> list[float]:
        found = run(module, torch.bfloat16, 1.0)
        assert [x.dtype for x in found] == [torch.bfloat16] * 2
        return [float((x.float() - y).norm()) for x, y in zip(found, exact, strict=True)]

    own = errors()
    with pointwise.installed(module) as count:
        assert count == 1
        for ours, theirs in zip(errors(), own, strict=True):
            assert ours <= 1.1 * theirs


def kept(module: nn.Module) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Return the shape and dtype of everything that is kept for the backward pass."""
    found: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    x = torch.randn(5, WIDTH).bfloat16().requires_grad_()
    with (
        pointwise.installed(module),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        module(x)
    weights = {p.data_ptr() for p in module.parameters()}
    return [(tuple(t.shape), t.dtype) for t in found if t.data_ptr() not in weights]


def test_a_norm_keeps_its_input_in_its_own_precision_and_a_number_a_token() -> None:
    expected = [((5, WIDTH), torch.bfloat16), ((5, 1), torch.float32)]
    assert kept(norm(torch.bfloat16)) == expected


def test_a_gated_block_keeps_gate_and_value_alone() -> None:
    assert kept(gated(torch.bfloat16)) == [((5, INNER), torch.bfloat16)] * 2


def test_other_modules_keep_their_own_forward_pass() -> None:
    gelu = GemmaMLP(GemmaConfig(hidden_size=WIDTH, intermediate_size=INNER))
    for module in (
        frozen(GemmaRMSNorm(WIDTH)),
        frozen(nn.LayerNorm(WIDTH)),
        frozen(gelu),
        norm().requires_grad_(True),
    ):
        with pointwise.installed(module) as count:
            assert count == 0
            assert "forward" not in vars(module)


def test_an_input_of_another_precision_is_the_models_own_affair() -> None:
    module = norm()
    x = torch.randn(3, WIDTH).bfloat16()
    expected = module(x)
    with pointwise.installed(module):
        assert torch.equal(module(x), expected)
    assert expected.dtype == torch.float32


def test_afterwards_the_model_is_as_before() -> None:
    module = gated()
    with pointwise.installed(module):
        assert "forward" in vars(module)
    assert "forward" not in vars(module)
