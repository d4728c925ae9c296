"""LoRI's linear maps in as few passes over memory as they need; installed on PEFT's layers.

PEFT computes y = x Wᵀ + s (x Aᵀ) Bᵀ as three products, a scaling and a sum, and their gradients one
by one. With W and A frozen all that training needs is y, h = x Aᵀ, and

    dB = s gᵀ h        dx = g W + s (g B) A        for g = dL/dy,

so x is not kept, and the small products are added into the large ones' results (BLAS's beta = 1).
Maps of one input (q, k, v; gate, up) share one product for their A's. In float32 a batch that is
long enough adds s B A to a scratch copy of W first: then y and h come out of one product, and dx of
one for each map. In half precision that sum would round small updates away, so it is never done.

The same numbers as PEFT's up to the order of float sums, on the CPU and on CUDA alike: every
product is a library's (cuBLAS, MKL), in an order that depends on shapes alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lori_core.models import peft_names

#: Maps that read one input, by their last names, in the order of their calls.
GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
#: A batch of so many times d_in tokens gains more by products that are left out than it costs to
#: add s B A to W twice, forward and back.
MERGED_FROM = 2


class _Maps:
    """The frozen part of maps that read one input: W, A, bias and scaling of each."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.W = [layer.base_layer.weight for layer in layers]
        self.bias = [layer.base_layer.bias for layer in layers]
        self.A = [layer.lora_A[peft_names.ADAPTER].weight for layer in layers]
        self.scaling = [float(layer.scaling[peft_names.ADAPTER]) for layer in layers]
        self.ranks = [len(A) for A in self.A]
        self.sizes = [len(W) for W in self.W]
        self.stacked = self.A[0] if len(layers) == 1 else torch.cat(self.A)

    def merges(self, tokens: int) -> bool:
        """Say whether W and s B A are added up before they meet so many tokens."""
        W = self.W[0]
        return W.dtype == torch.float32 and tokens >= MERGED_FROM * int(W.shape[1])

    def merged(self, B: Sequence[Tensor]) -> Tensor:
        """Return W + s B A of each map, one below the other, and below them the A's."""
        rows = sum(self.sizes)
        all_rows = self.stacked.new_empty(rows + len(self.stacked), self.stacked.shape[1])
        parts = all_rows[:rows].split(self.sizes)
        for part, W, b, A, scaling in zip(parts, self.W, B, self.A, self.scaling, strict=True):
            torch.addmm(W, b, A, alpha=scaling, out=part)
        all_rows[rows:] = self.stacked
        return all_rows


class _Forward(torch.autograd.Function):
    """x, [T, d_in], and each B, [d_out, rank] -> each y, [T, d_out]."""

    @staticmethod
    def forward(ctx: Any, maps: _Maps, x: Tensor, *B: Tensor) -> tuple[Tensor, ...]:
        if maps.merges(len(x)):
            *ys, h = (x @ maps.merged(B).T).split([*maps.sizes, len(maps.stacked)], dim=1)
            h = h.contiguous()  # a view would keep every y
        else:
            h = x @ maps.stacked.T
            ys = [x @ W.T for W in maps.W]
            low = zip(ys, h.split(maps.ranks, dim=1), B, maps.scaling, strict=True)
            for y, part, b, scaling in low:
                y.addmm_(part, b.T, alpha=scaling)
        for y, bias in zip(ys, maps.bias, strict=True):
            if bias is not None:
                y += bias
        ctx.maps = maps
        ctx.save_for_backward(h, *B)
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        maps = ctx.maps
        h, *B = ctx.saved_tensors
        parts = h.split(maps.ranks, dim=1)
        dB = [
            (part.T @ g).mul_(scaling).T if needed else None
            for g, part, scaling, needed in zip(
                gradients, parts, maps.scaling, ctx.needs_input_grad[2:], strict=True
            )
        ]
        dx = _input_gradient(maps, gradients, B) if ctx.needs_input_grad[1] else None
        return None, dx, *dB


def _input_gradient(maps: _Maps, gradients: Sequence[Tensor], B: Sequence[Tensor]) -> Tensor:
    if maps.merges(len(gradients[0])):
        weights = maps.merged(B)[: sum(maps.sizes)].split(maps.sizes)
        return _sum_of_products(gradients, weights)
    low = [(g @ b).mul_(s) for g, b, s in zip(gradients, B, maps.scaling, strict=True)]
    u = low[0] if len(low) == 1 else torch.cat(low, dim=1)
    return _sum_of_products(gradients, maps.W).addmm_(u, maps.stacked)


def _sum_of_products(lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> Tensor:
    total = lefts[0] @ rights[0]
    for left, right in zip(lefts[1:], rights[1:], strict=True):
        total.addmm_(left, right)
    return total


class _Group:
    """Computes maps of one input when the first of them is called; the others take theirs."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = layers
        self.maps = _Maps(layers)
        self.input: Tensor | None = None
        self.waiting: dict[int, Tensor] = {}

    def call(self, index: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the map at `index` makes of x, [..., d_in]."""
        if args or kwargs or torch.is_autocast_enabled(x.device.type):
            plain: Tensor = type(self.layers[index]).forward(self.layers[index], x, *args, **kwargs)
            return plain
        if self.input is not x or index not in self.waiting:
            B = [layer.lora_B[peft_names.ADAPTER].weight for layer in self.layers]
            ys = _Forward.apply(self.maps, x.reshape(-1, x.shape[-1]), *B)
            self.input = x
            self.waiting = {n: y.view(*x.shape[:-1], -1) for n, y in enumerate(ys)}
        y = self.waiting.pop(index)
        if not self.waiting:
            self.input = None
        return y


def unsuited(layer: Any) -> str | None:
    """Say why PEFT's own forward pass must compute a LoRA layer; None where ours may."""
    from peft.tuners.lora.layer import Linear

    adapter = peft_names.ADAPTER
    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
        return f"a {type(layer.base_layer).__name__} is no plain linear map"
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
    """Let a PEFT model's LoRA layers compute as this module does, where they can.

    Yields:
        How many layers keep PEFT's own forward pass, by the reason.
    """
    layers = peft_names.lora_layers(model)
    reasons = {name: unsuited(layer) for name, layer in layers.items()}
    suited = [name for name, reason in reasons.items() if reason is None]
    for names in _grouped(suited):
        group = _Group([layers[name] for name in names])
        for index, name in enumerate(names):
            layers[name].forward = _bound(group, index)
    try:
        yield Counter(reason for reason in reasons.values() if reason is not None)
    finally:
        for name in suited:
            del layers[name].forward


def _bound(group: _Group, index: int) -> Any:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return group.call(index, x, *args, **kwargs)

    return forward


def _grouped(names: Sequence[str]) -> list[list[str]]:
    """Return the names of maps that read one input together, the others alone."""
    found: dict[tuple[str, int], list[str]] = {}
    for number, name in enumerate(names):
        parent, _, last = name.rpartition(".")
        kind = next((n for n, group in enumerate(GROUPS) if last in group), None)
        key = (name, -1 - number) if kind is None else (parent, kind)
        found.setdefault(key, []).append(name)
    return list(found.values())
