"""Causal attention by plain products, for CPUs that compute in bfloat16.

PyTorch's fused attention for the CPU is slow there, its backward pass above all. Here a block of
queries at a time meets the keys up to its end, in products that the libraries do near the machine's
peak, and most of what the causal order hides is left out. As in the fused one no scores are kept:
the backward pass computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

#: Queries of a block: few, so that a block's scores stay in the processor's cache and little of
#: them is hidden; not so few that the products become thin.
BLOCK = 64
#: Rows of fewer tokens gain nothing.
LEAST_LENGTH = 32


def suits(q: Tensor) -> bool:
    """Say whether queries, [examples, heads, length, size], are better attended to this way."""
    return q.shape[2] >= LEAST_LENGTH and q.device.type == "cpu" and q.dtype == torch.bfloat16


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
    """In a block, queries that share a key head stand in one column: as few, large products."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        k, v = k.contiguous(), v.contiguous()  # else every product copies them
        q = (q * scaling).reshape(*k.shape[:2], -1, *q.shape[2:])
        out = torch.empty_like(q)
        for block in _blocks(k.shape[2]):
            seen = slice(block.stop)
            weights = _weights(_column(q, block), k[:, :, seen])
            _put(out, block, weights @ v[:, :, seen])
        ctx.save_for_backward(q, k, v, out)
        ctx.scaling = scaling
        return out.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out = ctx.saved_tensors
        slope = gradient.reshape(q.shape)
        wide = torch.promote_types(q.dtype, torch.float32)
        mean = (slope * out).sum(-1, keepdim=True, dtype=wide).to(q.dtype)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block in _blocks(k.shape[2]):
            seen = slice(block.stop)
            queries, slopes = _column(q, block), _column(slope, block)
            weights = _weights(queries, k[:, :, seen])
            of_v[:, :, seen] += weights.mT @ slopes
            scores = (slopes @ v[:, :, seen].mT).sub_(_column(mean, block)).mul_(weights)
            _put(of_q, block, scores @ k[:, :, seen])
            of_k[:, :, seen] += scores.mT @ queries
        return of_q.mul_(ctx.scaling).flatten(1, 2), of_k, of_v, None


def _blocks(length: int) -> Iterator[slice]:
    for start in range(0, length, BLOCK):
        yield slice(start, min(start + BLOCK, length))


def _column(states: Tensor, block: slice) -> Tensor:
    """[examples, key heads, queries of a key, length, n] -> [examples, key heads, rows, n]."""
    return states[:, :, :, block].flatten(2, 3)


def _put(states: Tensor, block: slice, column: Tensor) -> None:
    states[:, :, :, block] = column.unflatten(2, (states.shape[2], -1))


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the softmax of a block's causal scores, [examples, key heads, rows, keys].

    Args:
        queries: [examples, key heads, rows, size]; of a key's queries the last sees all keys.
        keys: [examples, key heads, keys, size].
    """
    scores = queries @ keys.mT
    count = keys.shape[2]
    length = (count - 1) % BLOCK + 1
    later = torch.ones(length, length, dtype=torch.bool, device=keys.device).triu_(1)
    by_query = scores.unflatten(2, (-1, length))
    by_query[..., count - length :].masked_fill_(later, float("-inf"))
    return scores.softmax(-1)
