"""The loss of a batch, computed at its target tokens only (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lori_core.data.batching import IGNORED
from lori_core.training.kernels import packed_attention
from lori_core.training.kernels.packed_batches import changes_logits

#: Positions whose logits are in memory at a time; bounds them at LOGIT_CHUNK x vocabulary.
LOGIT_CHUNK = 256
#: Positions whose softmax is computed at a time on a CPU; few, so that it stays in the cache.
SOFTMAX_ROWS = 16
Reduction = Literal["sum", "none"]


def sequence_loss(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the sum of the negative log-probabilities of the target tokens, a float32 scalar.

    Logits are computed at target positions only, `LOGIT_CHUNK` positions at a time.

    Args:
        model: the model, also wrapped by PEFT.
        inputs: a packed batch (`data.packing`), or one padded on the right (`data.batching`);
            causal attention hides right padding without a mask.
    """
    first, *others = _chunk_losses(model, inputs, "sum")
    return sum(others, start=first)


def example_losses(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the loss of each example of a batch: float32, [batch]; see `sequence_loss`."""
    losses = torch.cat(_chunk_losses(model, inputs, "none"))
    if "counts" in inputs:
        counts = inputs["counts"]
    else:
        counts = (inputs["labels"][:, 1:] != IGNORED).sum(dim=1)
    return torch.stack([part.sum() for part in losses.split(counts.tolist())])


def _chunk_losses(model: Any, inputs: Mapping[str, Any], reduction: Reduction) -> list[Tensor]:
    """Return the losses of the target tokens, or their sum, in one or more chunks."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "slots" in inputs:
        hidden, targets = packed_attention.hidden_states(base, inputs), inputs["targets"]
        hidden = hidden.index_select(0, inputs["predicting"])
    else:
        ids, labels = inputs["input_ids"], inputs["labels"][:, 1:]
        supervised = labels != IGNORED
        targets = labels[supervised]
        if changes_logits(base):
            logits: Tensor = model(input_ids=ids, use_cache=False).logits[:, :-1][supervised]
            return [_nll(logits, targets, reduction)]
        states = packed_attention.backbone(base)(input_ids=ids, use_cache=False).last_hidden_state
        hidden = states[:, :-1][supervised]
    head = base.get_output_embeddings()
    if _is_plain(head):
        losses: Tensor = _FrozenHead.apply(head, hidden, targets)
        return [losses.sum() if reduction == "sum" else losses]
    chunks = zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True)
    if len(hidden) <= LOGIT_CHUNK:
        return [_chunk_loss(head, *chunk, reduction) for chunk in chunks]
    return [checkpoint(_chunk_loss, head, *c, reduction, use_reentrant=False) for c in chunks]


def _is_plain(head: Any) -> bool:
    """Return whether an output layer is its frozen weight and nothing else: no PEFT layer or hook.

    Searches and forecasts add an adapter of this layer as a hook (`merging.learned.branches`).
    """
    frozen = not any(p.requires_grad for p in head.parameters())
    return type(head) is nn.Linear and frozen and not head._forward_hooks


class _FrozenHead(torch.autograd.Function):
    """Compute the loss of each target, float32 [S], from hidden states [S, features].

    The forward pass also computes the gradient of the hidden states from each chunk's logits:
    (softmax - one-hot) times the head's weight. So logits are computed once and never stored for
    the backward pass. All chunks share one buffer: on a CPU, allocating fresh pages would take
    longer than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
        ctx.gradient = torch.empty_like(hidden) if ctx.needs_input_grad[1] else None
        logits = hidden.new_empty(min(len(hidden), LOGIT_CHUNK), head.out_features)
        losses = hidden.new_empty(
            len(hidden), dtype=torch.promote_types(hidden.dtype, torch.float32)
        )
        rows = SOFTMAX_ROWS if hidden.device.type == "cpu" else LOGIT_CHUNK
        for start in range(0, len(hidden), LOGIT_CHUNK):
            part = slice(start, start + LOGIT_CHUNK)
            chunk = logits[: len(hidden[part])]
            torch.mm(hidden[part], head.weight.T, out=chunk)
            if head.bias is not None:
                chunk += head.bias
            each = (x.split(rows) for x in (chunk, targets[part], losses[part]))
            for some, ids, out in zip(*each, strict=True):
                softmax = _softmax(some, ids, losses=out)
                if ctx.gradient is not None:
                    softmax.scatter_add_(1, ids[:, None], softmax.new_full((len(ids), 1), -1.0))
                    some.copy_(softmax)
            if ctx.gradient is not None:
                torch.mm(chunk, head.weight, out=ctx.gradient[part])
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.gradient * gradient[:, None].to(ctx.gradient.dtype), None


def _softmax(logits: Tensor, targets: Tensor, losses: Tensor) -> Tensor:
    """Return the softmax of logits, [n, vocabulary], float32; write the losses, [n], in place."""
    scores = logits.to(losses.dtype)
    gap = scores.amax(-1) - scores.gather(1, targets[:, None])[:, 0]
    softmax = scores.softmax(-1)
    # The target's own probability may underflow; the largest one does not.
    losses.copy_(gap - softmax.amax(-1).log())
    return softmax


def _chunk_loss(head: nn.Module, states: Tensor, targets: Tensor, reduction: Reduction) -> Tensor:
    return _nll(head(states), targets, reduction)


def _nll(logits: Tensor, targets: Tensor, reduction: Reduction) -> Tensor:
    losses: Tensor = nn.functional.cross_entropy(logits.float(), targets, reduction=reduction)
    return losses


def counted(inputs: Mapping[str, Any], loss: Literal["sequence_sum", "token_mean"]) -> int:
    """Return the number that divides a batch's summed loss: of its examples or target tokens."""
    if "counts" in inputs:
        return len(inputs["counts"] if loss == "sequence_sum" else inputs["targets"])
    labels = inputs["labels"]
    return len(labels) if loss == "sequence_sum" else int((labels != IGNORED).sum())
