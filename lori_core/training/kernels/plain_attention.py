"""Causal attention by matrix products, for bfloat16 on the CPU.

PyTorch's fused CPU attention is slow in bfloat16, above all its backward pass. This one multiplies
a block of queries at a time by the keys up to the block's end, so it runs near the peak speed of
the BLAS library and skips most of what the causal mask hides. For long rows, the backward pass
computes the attention weights again, as fused attention does, so they need not be stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

#: Queries of a block: few enough that a block's scores fit the cache and few of them are masked;
#: enough for the products to be efficient.
BLOCK = 64
#: Longer rows do not store their weights, whose memory grows with the square of the length.
SAVED_LENGTH = 512
#: Shorter rows, in tokens, are not faster this way.
MIN_LENGTH = 32


def suits(q: Tensor) -> bool:
    """Return whether `attend` is the faster way for queries [examples, heads, length, size]."""
    return q.shape[2] >= MIN_LENGTH and q.device.type == "cpu" and q.dtype == torch.bfloat16


def attend(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
    """Return causal attention, of q's shape: [examples, heads, length, size].

    Args:
        q: the queries.
        k: the keys, [examples, key heads, length, size]; the query heads are a multiple.
        v: the values, of k's shape.
        scaling: the factor of the scores.
    """
    out: Tensor = _Attend.apply(q, k, v, scaling)
    return out


class _Attend(torch.autograd.Function):
    """Attend block by block; the queries of a key head are stacked, for few and large products."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        k, v = k.contiguous(), v.contiguous()  # otherwise every product would copy them
        q = (q * scaling).reshape(*k.shape[:2], -1, *q.shape[2:])
        out = torch.empty_like(q)
        saves = any(ctx.needs_input_grad) and k.shape[2] <= SAVED_LENGTH
        saved = []
        for block in _blocks(k.shape[2]):
            seen = slice(block.stop)
            weights = _weights(_column(q, block), k[:, :, seen])
            _put(out, block, weights @ v[:, :, seen])
            if saves:
                saved.append(weights)
        ctx.save_for_backward(q, k, v, *saved)
        ctx.scaling = scaling
        return out.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *saved = ctx.saved_tensors
        slope = gradient.reshape(q.shape)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for number, block in enumerate(_blocks(k.shape[2])):
            seen = slice(block.stop)
            queries, slopes = _column(q, block), _column(slope, block)
            weights = saved[number] if saved else _weights(queries, k[:, :, seen])
            _add(of_v, seen, weights, slopes)
            of_weights = slopes @ v[:, :, seen].mT
            scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            _put(of_q, block, scores @ k[:, :, seen])
            _add(of_k, seen, scores, queries)
        return of_q.mul_(ctx.scaling).flatten(1, 2), of_k, of_v, None


def _blocks(length: int) -> Iterator[slice]:
    for start in range(0, length, BLOCK):
        yield slice(start, min(start + BLOCK, length))


def _column(states: Tensor, block: slice) -> Tensor:
    """Stack a block's rows: [examples, key heads, queries per key, length, n] -> [.., rows, n]."""
    return states[:, :, :, block].flatten(2, 3)


def _put(states: Tensor, block: slice, column: Tensor) -> None:
    states[:, :, :, block] = column.unflatten(2, (states.shape[2], -1))


def _add(total: Tensor, seen: slice, left: Tensor, right: Tensor) -> None:
    """Add leftᵀ right, [examples, key heads, keys, n], to a block's keys of `total`."""
    total.flatten(0, 1)[:, seen].baddbmm_(left.flatten(0, 1).mT, right.flatten(0, 1))


@lru_cache(maxsize=BLOCK)
def _later(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the causal mask of a block on its own keys, [length, length]: -inf above the diagonal.

    Its sum with the scores hides later keys.
    """
    return torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu_(1)


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the softmax of a block's causal scores, [examples, key heads, rows, keys].

    Args:
        queries: [examples, key heads, rows, size]; the last query of each head sees all keys.
        keys: [examples, key heads, keys, size].
    """
    scores = queries @ keys.mT
    count = keys.shape[2]
    length = (count - 1) % BLOCK + 1
    by_query = scores.unflatten(2, (-1, length))
    by_query[..., count - length :] += _later(length, scores.dtype, scores.device)
    return scores.softmax(-1)
