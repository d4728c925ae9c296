"""RMS norms in fewer passes: transformers' numbers, and no other module's."""

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from lori_core import norms

WIDTH = 24


def made(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a frozen norm with weights around 1."""
    module: nn.Module = kind(WIDTH)
    with torch.no_grad():
        module.weight += torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)) / 4
    return module.to(dtype).requires_grad_(False)


def run(module: nn.Module, dtype: torch.dtype, large: float) -> tuple[Tensor, Tensor]:
    """Return what a norm gives and the gradient of its input."""
    generator = torch.Generator().manual_seed(0)
    x, slope = torch.randn(2, 2, 5, WIDTH, generator=generator).to(dtype).unbind()
    x = (x * large).requires_grad_()
    y = module(x)
    y.backward(slope)
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen2RMSNorm])
@pytest.mark.parametrize("large", [1e-4, 1.0, 100.0])
def test_values_and_gradients_are_the_models_own(kind: type[nn.Module], large: float) -> None:
    module = made(kind)
    expected = run(module, torch.float32, large)
    with norms.installed(module) as count:
        assert count == 1
        found = run(module, torch.float32, large)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_in_half_precision_it_errs_no_more_than_the_models_own() -> None:
    exact = run(made(LlamaRMSNorm), torch.float32, 1.0)
    module = made(LlamaRMSNorm, torch.bfloat16)

    def errors() -> list[float]:
        found = run(module, torch.bfloat16, 1.0)
        assert [x.dtype for x in found] == [torch.bfloat16] * 2
        return [float((x.float() - y).norm()) for x, y in zip(found, exact, strict=True)]

    own = errors()
    with norms.installed(module) as count:
        assert count == 1
        for ours, theirs in zip(errors(), own, strict=True):
            assert ours <= 1.1 * theirs


def test_it_keeps_its_input_in_its_own_precision() -> None:
    module = made(LlamaRMSNorm, torch.bfloat16)
    kept: list[Tensor] = []
    x = torch.randn(5, WIDTH).bfloat16().requires_grad_()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t)
    with norms.installed(module), hooks:
        module(x)
    assert {(tuple(t.shape), t.dtype) for t in kept} == {
        ((5, WIDTH), torch.bfloat16),
        ((WIDTH,), torch.bfloat16),
        ((5, 1), torch.float32),
    }


def test_another_norm_keeps_its_own_forward_pass() -> None:
    trained = made(LlamaRMSNorm)
    trained.requires_grad_(True)
    for module in (made(GemmaRMSNorm), made(nn.LayerNorm), trained):
        with norms.installed(module) as count:
            assert count == 0
            assert "forward" not in vars(module)


def test_an_input_of_another_precision_is_the_models_own_affair() -> None:
    module = made(LlamaRMSNorm)
    x = torch.randn(3, WIDTH).bfloat16()
    expected = module(x)
    with norms.installed(module):
        assert torch.equal(module(x), expected)
    assert expected.dtype == torch.float32


def test_afterwards_the_model_is_as_before() -> None:
    module = made(LlamaRMSNorm)
    with norms.installed(module):
        assert "forward" in vars(module)
    assert "forward" not in vars(module)
