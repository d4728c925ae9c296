"""Causal attention by plain products, for CPUs that compute in bfloat16.

PyTorch's fused attention for the CPU is slow there, its backward pass above all. Here a block of
queries at a time meets the keys up to its end, in products that the libraries do near the machine's
peak, and most of what the causal order hides is left out. Of long rows the attention weights are
not kept but computed again by the backward pass, as the fused one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

#: Queries of a block: few, so that a block's scores stay in the processor's cache and little of
#: them is hidden; not so few that the products become thin.
BLOCK = 64
#: Longer rows do not keep their weights: the memory for them would grow with the length squared.
KEPT_LENGTH = 512
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
        keeps = any(ctx.needs_input_grad) and k.shape[2] <= KEPT_LENGTH
        kept = []
        for block in _blocks(k.shape[2]):
            seen = slice(block.stop)
            weights = _weights(_column(q, block), k[:, :, seen])
            _put(out, block, weights @ v[:, :, seen])
            if keeps:
                kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scaling = scaling
        return out.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        slope = gradient.reshape(q.shape)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for number, block in enumerate(_blocks(k.shape[2])):
            seen = slice(block.stop)
            queries, slopes = _column(q, block), _column(slope, block)
            weights = kept[number] if kept else _weights(queries, k[:, :, seen])
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
    """[examples, key heads, queries of a key, length, n] -> [examples, key heads, rows, n]."""
    return states[:, :, :, block].flatten(2, 3)


def _put(states: Tensor, block: slice, column: Tensor) -> None:
    states[:, :, :, block] = column.unflatten(2, (states.shape[2], -1))


def _add(total: Tensor, seen: slice, left: Tensor, right: Tensor) -> None:
    """Add leftᵀ right, [examples, key heads, keys, n], to a block's keys of `total`."""
    total.flatten(0, 1)[:, seen].baddbmm_(left.flatten(0, 1).mT, right.flatten(0, 1))


@lru_cache(maxsize=BLOCK)
def _later(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what hides the later of a block's own keys from its queries, [length, length]."""
    return torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu_(1)


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the softmax of a block's causal scores, [examples, key heads, rows, keys].

    Args:
        queries: [examples, key heads, rows, size]; of a key's queries the last sees all keys.
        keys: [examples, key heads, keys, size].
    """
    scores = queries @ keys.mT
    count = keys.shape[2]
    length = (count - 1) % BLOCK + 1
    by_query = scores.unflatten(2, (-1, length))
    by_query[..., count - length :] += _later(length, scores.dtype, scores.device)
    return scores.softmax(-1)
