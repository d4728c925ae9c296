"""The loss of a frozen head, and its gradient, chunk by chunk."""

import pytest
import torch
from torch import Tensor, nn

from lori_core.training import loss

WIDTH, VOCABULARY, COUNT = 8, 50, 7


def made(dtype: torch.dtype, bias: bool, large: float = 1.0) -> tuple[nn.Linear, Tensor, Tensor]:
    """Return a frozen head, states and targets."""
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, bias=bias).requires_grad_(False)
    states = large * torch.randn(COUNT, WIDTH)
    return head.to(dtype), states.to(dtype).requires_grad_(), torch.arange(COUNT) * 7


def exact(head: nn.Linear, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses and the states' gradient, computed in float64 as PyTorch does."""
    states = states.detach().double().requires_grad_()
    bias = None if head.bias is None else head.bias.double()
    logits = nn.functional.linear(states, head.weight.double(), bias)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    (losses * torch.arange(1, COUNT + 1)).sum().backward()
    assert states.grad is not None
    return losses.detach(), states.grad


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("large", [1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_frozen_heads_losses_and_gradient_are_cross_entropys(
    monkeypatch: pytest.MonkeyPatch, bias: bool, large: float, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(loss, "LOGIT_CHUNK", 3)
    head, states, targets = made(dtype, bias, large)
    expected, slope = exact(head, states, targets)
    losses = loss._FrozenHead.apply(head, states, targets)
    assert losses.dtype == torch.float32
    (losses * torch.arange(1, COUNT + 1)).sum().backward()
    near = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(losses.double(), expected, rtol=near, atol=near)
    assert states.grad is not None
    assert states.grad.dtype == dtype
    assert (states.grad.double() - slope).norm() <= near * slope.norm()


def test_without_a_gradient_none_is_made() -> None:
    head, states, targets = made(torch.float32, bias=False)
    expected, _ = exact(head, states, targets)
    with torch.no_grad():
        losses = loss._FrozenHead.apply(head, states, targets)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-6)
