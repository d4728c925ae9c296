"""Memory-efficient RMS norms and gated activations; they replace the forward pass of a model's own.

With frozen weights, the backward pass of

    y = w u     for u = x / sqrt(mean(x²) + eps)        and        y = silu(g) v

needs only x with one number per token, and g and v:

    dx = (h - u mean(h u)) / sqrt(mean(x²) + eps)                  for h = w dL/dy
    dg = silu'(g) v dL/dy        dv = silu(g) dL/dy

Autograd would also save float32 copies of x, and silu(g). Sums are in float32 and values are
rounded where transformers rounds them. Modules of the same class name differ between models, so
each is compared with the replacement on a trial input first. On CUDA, Liger's kernels come first
(`kernels.liger`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from lori_core.training.kernels import liger

Forward = Callable[[Tensor], Tensor]


class _Norm(torch.autograd.Function):
    """RMS norm of x, [..., features], with weight, [features], and eps; the result is as x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale: Tensor = mean.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        y: Tensor = (wide * scale).to(x.dtype).mul_(weight)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        u = x.float() * scale
        h = (gradient * weight).float()
        mean = (h * u).sum(-1, keepdim=True).div_(x.shape[-1])
        return h.addcmul_(u, mean, value=-1).mul_(scale).to(x.dtype), None, None


class _Gated(torch.autograd.Function):
    """silu(gate) * value, for two tensors of the same shape."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        y: Tensor = nn.functional.silu(gate).mul_(value)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, value = ctx.saved_tensors
        of_value = nn.functional.silu(gate).mul_(gradient)
        of_gate: Tensor = torch.ops.aten.silu_backward(gradient * value, gate)
        return of_gate, of_value


def _norms(module: Any, fast: bool) -> list[tuple[Forward, int]]:
    """Return the possible forward passes of an RMS norm, and its features; none for others.

    Args:
        module: the module.
        fast: whether Liger's kernels come first.
    """
    if not type(module).__name__.endswith("RMSNorm"):
        return []
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    trained = {name: p.requires_grad for name, p in module.named_parameters()}
    if trained != {"weight": False} or eps is None:
        return []
    weight = module.weight
    kernels: list[Forward] = liger.norm_forwards(weight, eps) if fast else []
    kernels.append(lambda x: cast(Tensor, _Norm.apply(x, weight, eps)))

    def bound(kernel: Forward) -> Forward:
        def forward(x: Tensor) -> Tensor:
            if x.dtype != weight.dtype:  # then torch promotes the product to the wider dtype
                own: Tensor = type(module).forward(module, x)
                return own
            return kernel(x)

        return forward

    return [(bound(kernel), len(weight)) for kernel in kernels]


def _gated(module: Any, fast: bool) -> list[tuple[Forward, int]]:
    """Return the possible forward passes of a gated MLP, and its features; none for others.

    Args:
        module: the module.
        fast: whether Liger's kernel comes first.
    """
    layers = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if type(getattr(module, "act_fn", None)).__name__ not in {"SiLU", "SiLUActivation"}:
        return []
    if not all(hasattr(layer, "in_features") for layer in layers):
        return []

    def bound(kernel: Callable[[Tensor, Tensor], Tensor]) -> Forward:
        def forward(x: Tensor) -> Tensor:
            gate, value = module.gate_proj(x), module.up_proj(x)
            y: Tensor = module.down_proj(kernel(gate, value))
            return y

        return forward

    kernels = [liger.gated] if fast else []
    features = module.gate_proj.in_features
    return [(bound(kernel), features) for kernel in (*kernels, _Gated.apply)]


def _chosen(module: nn.Module, like: Tensor) -> Forward | None:
    """Return the first forward pass that agrees with a module's own; None if there is none."""
    fast = liger.usable(like.device)
    possible = _norms(module, fast) or _gated(module, fast)
    for number, (forward, features) in enumerate(possible):
        # The last one is our own; of Liger's, gradients are compared too, and all errors caught.
        own = number == len(possible) - 1
        if not own and not liger.agrees(forward, module, _rows(features, like)):
            continue
        if _alike(module, forward, features, like):
            return forward
    return None


def _rows(features: int, like: Tensor) -> Tensor:
    """Return random rows, [1, 4, features], of small to large scale."""
    rows = torch.randn(4, features, generator=torch.Generator().manual_seed(0))
    # The scales of the rows range from those where a norm's eps dominates to negligible eps.
    return (rows * torch.logspace(-4, 1, 4)[:, None]).to(like)[None]


@torch.no_grad()
def _alike(module: nn.Module, forward: Forward, features: int, like: Tensor) -> bool:
    """Return whether a forward pass agrees with a module's own on random rows."""
    rows = _rows(features, like)
    try:
        ours, expected = forward(rows)[0].float(), module(rows)[0].float()
    except torch.OutOfMemoryError:  # of other work; which kernel is used must not depend on it
        raise
    except (ValueError, TypeError, AttributeError, RuntimeError):
        return False
    distance = (ours - expected).norm(dim=-1)
    tolerance = 1e-5 if like.dtype == torch.float32 else 1e-2
    return bool((distance <= tolerance * expected.norm(dim=-1)).all())


@contextmanager
def installed(model: nn.Module) -> Iterator[int]:
    """Replace the forward pass of a model's RMS norms and gated MLPs inside a `with` block.

    Yields:
        The number of modules replaced: those whose own results the replacement reproduces.
    """
    like = next(p for p in model.parameters() if p.is_floating_point())
    changed = []
    for module in model.modules():
        ours = _chosen(module, like)
        if ours is not None:
            module.forward = ours
            changed.append(module)
    try:
        yield len(changed)
    finally:
        for module in changed:
            del module.forward
