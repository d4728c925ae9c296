"""Causal attention by plain products, for CPUs that compute in bfloat16.

PyTorch's fused attention for the CPU is slow there, its backward pass above all; a softmax between
two products takes half the time for rows of a few hundred tokens. As the fused one, it keeps no
scores: the backward pass computes them again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Scores of more bytes than this at a time are left to the fused attention, which makes none.
MOST_BYTES = 2**27
#: Rows of fewer tokens gain nothing.
LEAST_LENGTH = 32


def suits(q: Tensor) -> bool:
    """Say whether queries, [examples, heads, length, size], are better attended to this way."""
    examples, heads, length, _ = q.shape
    scores = 2 * examples * heads * length**2
    fits = length >= LEAST_LENGTH and scores <= MOST_BYTES
    return fits and q.device.type == "cpu" and q.dtype == torch.bfloat16


def attend(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
    """Return causal attention, of q's shape: [examples, heads, length, size].

    Args:
        q: the queries.
        k: the keys, [examples, key heads, length, size]; each serves as many query heads.
        v: the values, as the keys.
        scaling: of the scores.
    """
    out: Tensor = _Attend.apply(q, k, v, scaling)
    return out


class _Attend(torch.autograd.Function):
    """Queries that share a key head stand in one column, [examples, key heads, rows, size]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        shared = q.reshape(*k.shape[:2], -1, q.shape[-1])
        out = _weights(shared, k, scaling) @ v
        ctx.save_for_backward(shared, k, v, out)
        ctx.scaling = scaling
        return out.view(q.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out = ctx.saved_tensors
        slope = gradient.reshape(q.shape)
        weights = _weights(q, k, ctx.scaling)
        of_v = weights.mT @ slope
        wide = torch.promote_types(q.dtype, torch.float32)
        mean = (slope * out).sum(-1, keepdim=True, dtype=wide)
        scores = (slope @ v.mT).sub_(mean.to(q.dtype)).mul_(weights).mul_(ctx.scaling)
        return (scores @ k).view(gradient.shape), scores.mT @ q, of_v, None


def _weights(q: Tensor, k: Tensor, scaling: float) -> Tensor:
    """Return the softmax of the causal scores, [examples, key heads, rows, length]."""
    length = k.shape[-2]
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu_(1)
    scores = (q * scaling) @ k.mT
    by_head = scores.view(*scores.shape[:2], -1, length, length)
    by_head.masked_fill_(later, float("-inf"))
    return scores.softmax(-1)
