"""Attention for packed batches, so that any transformers model can be trained on them.

The attention function is registered with transformers' `AttentionInterface`; a model whose
attention uses that interface takes packed batches unchanged. `unsupported_reason` verifies on
a trial batch that the model's results are those of padded batches. The function gathers the nodes
of each example into groups of examples of similar length and calls `scaled_dot_product_attention`,
on the CPU and on CUDA. Padding inside a group costs a few per cent of the attention's work; as it
is on the right, it needs no mask, so kernels for plain causal attention apply.

Where variable-length attention is supported (`kernels.variable_length`), batches are laid out
without padding, and each layer makes one call for all examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded
from lori_core.training.kernels import plain_attention, variable_length

NAME = "lori_packed"


@dataclass(frozen=True)
class Packing:
    """The layout of a packed batch; see `data.packing.pack_batch` for the fields."""

    groups: tuple[tuple[int, int], ...]
    slots: Tensor
    places: Tensor
    shared: Tensor
    uses: Tensor
    offsets: Tensor
    starts: Tensor | None = None

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Packing:
        """Return the layout of a packed batch."""
        return cls(**{name: inputs[name] for name in cls.__dataclass_fields__ if name in inputs})

    @property
    def one_to_one(self) -> bool:
        """Whether the places are the nodes in their order: no padding, no shared nodes."""
        return self.starts is not None and not len(self.shared)

    @property
    def longest(self) -> int:
        """The tokens of the longest example."""
        return max(length for _, length in self.groups)


class _LayOut(torch.autograd.Function):
    """Copy nodes, [T, features], to their places, [N, features]; the backward pass sums."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return nodes.index_select(0, packing.slots)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        result = gradient.index_select(0, packing.places)
        if len(packing.shared):
            # `embedding_bag` sums in a fixed order; on CUDA, `index_add` is not deterministic.
            sums = nn.functional.embedding_bag(
                packing.uses, gradient.contiguous(), packing.offsets, mode="sum"
            )
            result.index_copy_(0, packing.shared, sums)
        return result, None


class _TakeNodes(torch.autograd.Function):
    """Return the nodes, [T, features], each read from one of its places in [N, features]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packing: Packing) -> Tensor:
        ctx.packing, ctx.count = packing, len(rows)
        return rows.index_select(0, packing.places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        result = gradient.new_zeros(ctx.count, gradient.shape[1])
        return result.index_copy_(0, ctx.packing.places, gradient), None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend causally inside each example of a packed batch.

    Args:
        module: the attention layer.
        query: [1, heads, T, head size]; key and value: [1, key heads, T, head size].
        key: see query.
        value: see query.
        attention_mask: must be None; the layout determines the causal masks.
        packing: the layout.
        dropout: the dropout rate of the attention weights.
        scaling: the factor of the scores.
        sliding_window: how many tokens back a token attends, itself included.
        softcap: not supported.
        s_aux: not supported.

    Returns:
        [1, T, heads, head size].

    Raises:
        ValueError: this kind of attention is not supported; training then uses padded batches.
    """
    if packing is None or attention_mask is not None or softcap or s_aux is not None:
        raise ValueError("attention of this kind cannot be packed")
    if not getattr(module, "is_causal", True):
        raise ValueError("attention that is not causal cannot be packed")
    q, k, v = (_rows(x, packing) for x in (query, key, value))
    heads = query.shape[1]
    if packing.starts is not None:
        if dropout:
            raise ValueError("variable-length attention has no dropout")
        by_head = (heads, key.shape[1], key.shape[1])
        q, k, v = (x.unflatten(1, (n, -1)) for x, n in zip((q, k, v), by_head, strict=True))
        scale = scaling or query.shape[-1] ** -0.5
        attended = variable_length.attend(
            q, k, v, packing.starts, packing.longest, scale, sliding_window
        )
        return _nodes(attended.flatten(1), packing).view(1, -1, heads, value.shape[-1]), None
    rows = []
    start = 0
    for batch, length in packing.groups:
        stop = start + batch * length
        qkv = [
            x[start:stop].view(batch, length, n, -1).transpose(1, 2)
            for x, n in ((q, heads), (k, key.shape[1]), (v, value.shape[1]))
        ]
        rows.append(_attend(qkv, dropout, scaling, sliding_window))
        start = stop
    out = rows[0] if len(rows) == 1 else torch.cat(rows)
    return _nodes(out, packing).view(1, -1, heads, value.shape[-1]), None


def _attend(
    qkv: Sequence[Tensor], dropout: float, scaling: float | None, window: int | None
) -> Tensor:
    """Attend in one group: q, k, v, [examples, heads, length, size] -> [places, heads * size]."""
    q, k, v = qkv
    grouped = q.shape[1] != k.shape[1]
    mask = _window_mask(q.shape[2], window, q.device)
    if grouped and q.is_cuda and (q.dtype == torch.float32 or mask is not None):
        # Only cuDNN's kernel, which is off, supports grouped heads in float32 or with a mask; the
        # unfused one needs memory for all scores.
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        grouped = False
    if mask is None and not dropout and plain_attention.suits(q):
        out = plain_attention.attend(q, k, v, scaling or q.shape[-1] ** -0.5)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)
    out = nn.functional.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )
    return out.transpose(1, 2).flatten(2).flatten(0, 1)


def _rows(states: Tensor, packing: Packing) -> Tensor:
    """Copy node states, [1, heads, T, size], to their places, [N, heads * size]."""
    nodes = states[0].transpose(0, 1).flatten(1)
    if packing.one_to_one:
        return nodes
    rows: Tensor = _LayOut.apply(nodes, packing)
    return rows


def _nodes(rows: Tensor, packing: Packing) -> Tensor:
    """Return the nodes, [T, features], of the states at all places, [N, features]."""
    if packing.one_to_one:
        return rows
    nodes: Tensor = _TakeNodes.apply(rows, packing)
    return nodes


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return the sliding-window causal mask, bool [length, length]; None if none is needed."""
    if window is None or window >= length:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


AttentionInterface.register(NAME, packed_attention)


@contextmanager
def attending(base: Any) -> Iterator[None]:
    """Set a base model's attention to `packed_attention` inside a `with` block."""
    before = base.config._attn_implementation
    base.set_attn_implementation(NAME)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def backbone(base: Any) -> Any:
    """Return the part of a causal language model that computes hidden states."""
    # Language models inside multimodal ones may have the `base_model_prefix` of the latter.
    own = getattr(base, base.base_model_prefix, None)
    return base.model if own is None else own


def hidden_states(base: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the final hidden state of each node of a packed batch, [T, features]."""
    states: Tensor = backbone(base)(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        use_cache=False,
        packing=Packing.of(inputs),
    ).last_hidden_state
    return states[0]


#: The trial batch of `unsupported_reason`: three examples with a common prefix.
_TRIAL = [Encoded([5, 6, 7, 8], [9, 10], False), Encoded([5, 6, 7], [11], False)]
_TRIAL += [Encoded([5, 12, 13, 14, 15], [16, 17, 18], False)]


@torch.no_grad()
def unsupported_reason(base: Any, *, padded: bool = True) -> str | None:
    """Return why a model cannot take packed batches; None if it can.

    A forward pass on a trial batch shows it: a model that mixes tokens by anything but
    transformers' attention (a recurrence, a convolution, positions from the place in the batch)
    gives other hidden states for a packed batch than for single examples.

    Args:
        base: the model.
        padded: whether attention pads groups of examples, or uses variable-length attention.
    """
    device = next(base.parameters()).device
    trial = pack_batch(_TRIAL, padded=padded)
    packed: dict[str, Any] = {
        name: x.to(device) if isinstance(x, Tensor) else x for name, x in trial.items()
    }
    was_training = base.training
    base.eval()
    try:
        plain = [
            backbone(base)(
                input_ids=torch.tensor([item.prompt + item.target], device=device), use_cache=False
            ).last_hidden_state[0]
            for item in _TRIAL
        ]
        with attending(base):
            hidden = hidden_states(base, packed)
    except torch.OutOfMemoryError:  # of other work; which kernel is used must not depend on it
        raise
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        return f"its forward pass refuses them ({type(error).__name__})"
    finally:
        base.train(was_training)
    # With padding, the trial batch is one group, whose rows are the examples by falling length.
    rows = packed["slots"].view(packed["groups"][0]) if padded else _examples(packed)
    plain = sorted(plain, key=len, reverse=True) if padded else plain
    tolerance = 1e-3 if hidden.dtype == torch.float32 else 5e-2
    for row, expected in zip(rows, plain, strict=True):
        ours = hidden[row[: len(expected)]]
        if (ours - expected).float().norm() > tolerance * expected.float().norm():
            return "its forward pass gives other numbers for them"
    return None


def _examples(packed: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return the nodes of each example of a batch without padding."""
    slots: Tensor = packed["slots"]
    return tuple(slots.split([length for _, length in packed["groups"]]))
