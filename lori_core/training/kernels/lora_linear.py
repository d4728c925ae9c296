"""Memory-efficient LoRA linear layers with frozen W and A; they replace the forward of PEFT's.

PEFT computes y = x Wᵀ + s (x Aᵀ) Bᵀ as three products, a scaling and a sum, and differentiates each
of them. With W and A frozen, training needs only y, h = x Aᵀ, and

    dB = s gᵀ h        dx = g W + s (g B) A        for g = dL/dy,

so x is not saved for the backward pass, and the small products accumulate into the results of the
large ones (beta = 1 in BLAS). Layers with the same input (q, k, v; gate, up) share one product with
their stacked A. In float32, a batch that is long enough first adds s B A to a copy of W; then one
product gives y and h, and one product per layer gives dx. In half precision that sum would round
small updates away, so it is not used there.

Results equal PEFT's up to the order of floating-point sums, on the CPU and on CUDA: every product
is one of a library (cuBLAS, MKL), in an order that depends on shapes only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lori_core.models import peft_names

#: Groups of layers with the same input, by the last part of their names, in calling order.
GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
#: From MERGED_FROM * d_in tokens on, adding s B A to W (in the forward and the backward pass) costs
#: less than the products that it saves.
MERGED_FROM = 2


class _FrozenLayers:
    """The frozen tensors of layers with the same input: W, A, bias and scaling of each."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.W = [layer.base_layer.weight for layer in layers]
        self.bias = [layer.base_layer.bias for layer in layers]
        self.A = [layer.lora_A[peft_names.ADAPTER].weight for layer in layers]
        self.scaling = [float(layer.scaling[peft_names.ADAPTER]) for layer in layers]
        self.ranks = [len(A) for A in self.A]
        self.sizes = [len(W) for W in self.W]
        self.stacked = self.A[0] if len(layers) == 1 else torch.cat(self.A)

    def merges(self, tokens: int) -> bool:
        """Return whether a batch of so many tokens is multiplied by the sum W + s B A."""
        W = self.W[0]
        return W.dtype == torch.float32 and tokens >= MERGED_FROM * int(W.shape[1])

    def merged(self, B: Sequence[Tensor]) -> Tensor:
        """Return the stacked W + s B A of all layers, then their stacked A: [sum, d_in]."""
        rows = sum(self.sizes)
        all_rows = self.stacked.new_empty(rows + len(self.stacked), self.stacked.shape[1])
        parts = all_rows[:rows].split(self.sizes)
        for part, W, b, A, scaling in zip(parts, self.W, B, self.A, self.scaling, strict=True):
            torch.addmm(W, b, A, alpha=scaling, out=part)
        all_rows[rows:] = self.stacked
        return all_rows


class _LoraLinear(torch.autograd.Function):
    """Compute each layer's y, [T, d_out], from x, [T, d_in], and each B, [d_out, rank]."""

    @staticmethod
    def forward(ctx: Any, frozen: _FrozenLayers, x: Tensor, *B: Tensor) -> tuple[Tensor, ...]:
        if frozen.merges(len(x)):
            *ys, h = (x @ frozen.merged(B).T).split([*frozen.sizes, len(frozen.stacked)], dim=1)
            h = h.contiguous()  # a view would keep the memory of every y
        else:
            h = x @ frozen.stacked.T
            ys = [x @ W.T for W in frozen.W]
            low = zip(ys, h.split(frozen.ranks, dim=1), B, frozen.scaling, strict=True)
            for y, part, b, scaling in low:
                y.addmm_(part, b.T, alpha=scaling)
        for y, bias in zip(ys, frozen.bias, strict=True):
            if bias is not None:
                y += bias
        ctx.frozen = frozen
        ctx.save_for_backward(h, *B)
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        frozen = ctx.frozen
        h, *B = ctx.saved_tensors
        parts = h.split(frozen.ranks, dim=1)
        dB = [
            _gradient_of_B(g, part, b, scaling) if needed else None
            for g, part, b, scaling, needed in zip(
                gradients, parts, B, frozen.scaling, ctx.needs_input_grad[2:], strict=True
            )
        ]
        dx = _input_gradient(frozen, gradients, B) if ctx.needs_input_grad[1] else None
        return None, dx, *dB


def _gradient_of_B(g: Tensor, h: Tensor, b: Tensor, scaling: float) -> Tensor:  # noqa: N802
    """Return scaling gᵀ h, [d_out, rank]; on CUDA in the memory layout of B."""
    if g.is_cuda and b.is_contiguous():
        return _scaled(g.T, h, scaling)
    return _scaled(h.T, g, scaling).T


def _scaled(left: Tensor, right: Tensor, scaling: float) -> Tensor:
    """Return scaling (left right); on CUDA in one kernel, on the CPU with the bits of two."""
    if left.is_cuda:
        return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scaling)
    return (left @ right).mul_(scaling)


def _input_gradient(
    frozen: _FrozenLayers, gradients: Sequence[Tensor], B: Sequence[Tensor]
) -> Tensor:
    if frozen.merges(len(gradients[0])):
        weights = frozen.merged(B)[: sum(frozen.sizes)].split(frozen.sizes)
        return _sum_of_products(gradients, weights)
    low = [_scaled(g, b, s) for g, b, s in zip(gradients, B, frozen.scaling, strict=True)]
    u = low[0] if len(low) == 1 else torch.cat(low, dim=1)
    return _sum_of_products(gradients, frozen.W).addmm_(u, frozen.stacked)


def _sum_of_products(lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> Tensor:
    total = lefts[0] @ rights[0]
    for left, right in zip(lefts[1:], rights[1:], strict=True):
        total.addmm_(left, right)
    return total


class _Group:
    """Layers with the same input: the first call computes the outputs of all of them."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers
        self.frozen = _FrozenLayers(layers)
        self.input: Tensor | None = None
        self.waiting: dict[int, Tensor] = {}

    def call(self, index: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output of the layer at `index`, [..., d_out], for x, [..., d_in]."""
        if args or kwargs or torch.is_autocast_enabled(x.device.type):
            plain: Tensor = type(self.layers[index]).forward(self.layers[index], x, *args, **kwargs)
            return plain
        if self.input is not x or index not in self.waiting:
            B = [layer.lora_B[peft_names.ADAPTER].weight for layer in self.layers]
            ys = _LoraLinear.apply(self.frozen, x.reshape(-1, x.shape[-1]), *B)
            self.input = x
            self.waiting = {n: y.view(*x.shape[:-1], -1) for n, y in enumerate(ys)}
        y = self.waiting.pop(index)
        if not self.waiting:
            self.input = None
        return y


def unsupported_reason(layer: Any) -> str | None:
    """Return why a LoRA layer must keep PEFT's forward pass; None if ours can replace it."""
    from peft.tuners.lora.layer import Linear

    adapter = peft_names.ADAPTER
    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
        return f"a {type(layer.base_layer).__name__} is not a plain nn.Linear"
    if layer.lora_variant or layer.merged or layer.active_adapters != [adapter]:
        return "a variant of LoRA, or several"
    if not isinstance(layer.lora_dropout[adapter], nn.Identity):
        return "dropout"
    base, A, B = layer.base_layer, layer.lora_A[adapter], layer.lora_B[adapter]
    if B.bias is not None or any(p.requires_grad for p in (*base.parameters(), A.weight)):
        return "more than B is trained"
    if not base.weight.dtype == A.weight.dtype == B.weight.dtype:
        return "several precisions"
    return None


@contextmanager
def installed(model: nn.Module) -> Iterator[dict[str, int]]:
    """Replace the forward pass of a PEFT model's LoRA layers, where supported, inside a block.

    Yields:
        For each reason, the number of layers that keep PEFT's forward pass.
    """
    layers = peft_names.lora_layers(model)
    reasons = {name: unsupported_reason(layer) for name, layer in layers.items()}
    supported = [name for name, reason in reasons.items() if reason is None]
    for names in _grouped(supported):
        group = _Group([layers[name] for name in names])
        for index, name in enumerate(names):
            layers[name].forward = _bound(group, index)
    try:
        yield Counter(reason for reason in reasons.values() if reason is not None)
    finally:
        for name in supported:
            del layers[name].forward


def _bound(group: _Group, index: int) -> Any:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return group.call(index, x, *args, **kwargs)

    return forward


def _grouped(names: Sequence[str]) -> list[list[str]]:
    """Return the names grouped by common input; other layers form groups of one."""
    groups: dict[tuple[str, int], list[str]] = {}
    for number, name in enumerate(names):
        parent, _, last = name.rpartition(".")
        kind = next((n for n, group in enumerate(GROUPS) if last in group), None)
        key = (name, -1 - number) if kind is None else (parent, kind)
        groups.setdefault(key, []).append(name)
    return list(groups.values())
