"""Attention over sequences one after another by its definition, to check faster kernels against."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor


class ReferenceAttention:
    """A `variable_length.Kernel` for any device and precision; slow, with all scores in memory."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scale: float, left: int
    ) -> tuple[Tensor, ...]:
        """See `variable_length.Kernel`."""
        out = torch.empty_like(q)
        for part in _sequences(starts, longest):
            weights, _, values = _weights(q[part], k[part], v[part], scale, left)
            out[part] = (weights @ values).transpose(0, 1)
        return (out,)

    def backward(
        self,
        gradient: Tensor,
        saved: tuple[Tensor, ...],
        starts: Tensor,
        longest: int,
        scale: float,
        left: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `variable_length.Kernel`."""
        q, k, v, _ = saved
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        shared = q.shape[1] // k.shape[1]
        for part in _sequences(starts, longest):
            weights, keys, values = _weights(q[part], k[part], v[part], scale, left)
            slope = gradient[part].transpose(0, 1)
            of_weights = slope @ values.mT
            scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
            of_q[part] = (scores @ keys).transpose(0, 1)
            queries = q[part].transpose(0, 1)
            for target, left_side, right_side in ((of_k, scores, queries), (of_v, weights, slope)):
                by_head = left_side.mT @ right_side
                target[part] = by_head.unflatten(0, (-1, shared)).sum(1).transpose(0, 1)
        return of_q, of_k, of_v


def _sequences(starts: Tensor, longest: int) -> Iterator[slice]:
    """Yield the tokens of each sequence."""
    places = starts.tolist()
    for start, stop in pairwise(places):
        if stop - start > longest:
            raise ValueError(
                f"a sequence of {stop - start} tokens; the longest was said to have {longest}"
            )
        yield slice(start, stop)


def _weights(
    q: Tensor, k: Tensor, v: Tensor, scale: float, left: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights, [heads, n, n], and keys and values, [heads, n, size], of a sequence."""
    queries, keys, values = (x.transpose(0, 1) for x in (q, k, v))
    keys, values = (x.repeat_interleave(len(queries) // len(x), dim=0) for x in (keys, values))
    seen = torch.ones(len(q), len(q), dtype=torch.bool, device=q.device).tril()
    if left >= 0:
        seen = seen.triu(-left)
    scores = (queries @ keys.mT * scale).masked_fill(~seen, float("-inf"))
    return scores.softmax(-1), keys, values
