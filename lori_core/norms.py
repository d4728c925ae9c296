"""RMS norms with frozen weights in fewer passes over memory; installed on a model's own.

    y = w u        u = x / sqrt(mean(x²) + eps)

Of it all training needs is dx = (h - u mean(h u)) / sqrt(mean(x²) + eps) with h = w dL/dy, so x
and one number a token are kept, x in its own precision: as autograd has it, float32 copies of x are,
and each operation goes through memory once more. Sums are in float32, roundings where
transformers' norms have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _Norm(torch.autograd.Function):
    """x, [..., features], weight, [features], eps -> y, as x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        u = x.float() * scale
        h = (gradient * weight).float()
        mean = (h * u).sum(-1, keepdim=True).div_(x.shape[-1])
        return h.addcmul_(u, mean, value=-1).mul_(scale).to(x.dtype), None, None


def _eps(module: nn.Module) -> float | None:
    """Return what a norm of this kind adds to the mean square; None for another module."""
    weight = getattr(module, "weight", None)
    own = [getattr(module, name) for name in ("variance_epsilon", "eps") if hasattr(module, name)]
    if not type(module).__name__.endswith("RMSNorm") or weight is None or weight.requires_grad:
        return None
    return own[0] if own and [name for name, _ in module.named_parameters()] == ["weight"] else None


@torch.no_grad()
def suits(module: nn.Module) -> bool:
    """Say whether a module gives this norm's numbers; tried, since norms of one name differ."""
    eps = _eps(module)
    if eps is None:
        return False
    weight: Any = module.weight
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4, len(weight), generator=generator)
    # From rows where eps is most of the sum to rows where it is nothing.
    rows *= torch.logspace(-1, 2, 4)[:, None] * max(eps, 1e-12) ** 0.5
    rows = rows.to(weight)
    found, expected = _Norm.apply(rows, weight, eps), module(rows)
    near = 1e-5 if weight.dtype == torch.float32 else 1e-2
    return bool(torch.allclose(found.float(), expected.float(), rtol=near, atol=near * 1e-3))


@contextmanager
def installed(model: nn.Module) -> Iterator[int]:
    """Let a model's RMS norms compute as this module does, where that gives their numbers.

    Yields:
        How many do.
    """
    suited = [module for module in model.modules() if suits(module)]
    for module in suited:
        module.forward = _bound(module, _eps(module))
    try:
        yield len(suited)
    finally:
        for module in suited:
            del module.forward


def _bound(module: Any, eps: float | None) -> Any:
    def forward(x: Tensor) -> Tensor:
        alike = x.dtype == module.weight.dtype
        y: Tensor = _Norm.apply(x, module.weight, eps) if alike else type(module).forward(module, x)
        return y

    return forward
