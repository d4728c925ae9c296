"""The loss of a batch, by its target tokens alone (METHOD, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lori_core.data.batching import IGNORED
from lori_core.training.kernels import packed_attention

#: Positions whose logits exist at the same time; bounds memory at positions x vocabulary.
LOGIT_CHUNK = 256
#: Positions whose softmax is taken at the same time; few, so that on a CPU it stays in the cache.
SOFTMAX_ROWS = 16
Reduction = Literal["sum", "none"]
#: Config entries of models that change logits after `lm_head`; those take the model's own path.
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def sequence_loss(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the sum of the target tokens' negative log-probabilities, float32, a scalar.

    Logits are computed only where there is a target, `LOGIT_CHUNK` positions at a time. Batches are
    packed (`data.packing`), or padded on the right (`data.batching`), where causal attention
    already hides the padding and needs no mask.
    """
    first, *others = _chunk_losses(model, inputs, "sum")
    return sum(others, start=first)


def example_losses(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return what `sequence_loss` sums, for each example of the batch: float32, [batch]."""
    losses = torch.cat(_chunk_losses(model, inputs, "none"))
    if "counts" in inputs:
        counts = inputs["counts"]
    else:
        counts = (inputs["labels"][:, 1:] != IGNORED).sum(dim=1)
    return torch.stack([part.sum() for part in losses.split(counts.tolist())])


def _chunk_losses(model: Any, inputs: Mapping[str, Any], reduction: Reduction) -> list[Tensor]:
    """Return the target tokens' losses, or their sum, for each `LOGIT_CHUNK` of positions."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "slots" in inputs:
        hidden, targets = packed_attention.hidden_states(base, inputs), inputs["targets"]
        hidden = hidden.index_select(0, inputs["predicting"])
    else:
        ids, labels = inputs["input_ids"], inputs["labels"][:, 1:]
        wanted = labels != IGNORED
        targets = labels[wanted]
        if changes_logits(base):
            logits: Tensor = model(input_ids=ids, use_cache=False).logits[:, :-1][wanted]
            return [_nll(logits, targets, reduction)]
        states = packed_attention.backbone(base)(input_ids=ids, use_cache=False).last_hidden_state
        hidden = states[:, :-1][wanted]
    head = base.get_output_embeddings()
    if type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters()):
        losses: Tensor = _FrozenHead.apply(head, hidden, targets)
        return [losses.sum() if reduction == "sum" else losses]
    chunks = zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True)
    if len(hidden) <= LOGIT_CHUNK:
        return [_chunk_loss(head, *chunk, reduction) for chunk in chunks]
    return [checkpoint(_chunk_loss, head, *c, reduction, use_reentrant=False) for c in chunks]


class _FrozenHead(torch.autograd.Function):
    """The loss of each target, float32, [S], from hidden states, [S, features].

    While a chunk's logits are there, the states' gradient is made of them: softmax less one-hot,
    times the head. So logits are computed once, and neither they nor their gradient are kept. All
    chunks use the same memory: on a CPU, fresh pages would take longer than what is done in them.
    """

    @staticmethod
    def forward(ctx: Any, head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
        ctx.kept = torch.empty_like(hidden) if ctx.needs_input_grad[1] else None
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
            for some, aimed, place in zip(*each, strict=True):
                softmax = _softmax(some, aimed, losses=place)
                if ctx.kept is not None:
                    softmax.scatter_add_(1, aimed[:, None], softmax.new_full((len(aimed), 1), -1.0))
                    some.copy_(softmax)
            if ctx.kept is not None:
                torch.mm(chunk, head.weight, out=ctx.kept[part])
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.kept * gradient[:, None].to(ctx.kept.dtype), None


def _softmax(logits: Tensor, targets: Tensor, losses: Tensor) -> Tensor:
    """Return the softmax of logits, [n, vocabulary], in float32; put the targets' losses, [n]."""
    scores = logits.to(losses.dtype)
    behind = scores.amax(-1) - scores.gather(1, targets[:, None])[:, 0]
    softmax = scores.softmax(-1)
    losses.copy_(behind - softmax.amax(-1).log())  # a target's own share may be too small a float
    return softmax


def changes_logits(base: Any) -> bool:
    """Say whether a model's config has it change logits after `lm_head`."""
    config = base.config.get_text_config()
    return any(getattr(config, name, None) for name in _LOGIT_CHANGES)


def _chunk_loss(head: nn.Module, states: Tensor, targets: Tensor, reduction: Reduction) -> Tensor:
    return _nll(head(states), targets, reduction)


def _nll(logits: Tensor, targets: Tensor, reduction: Reduction) -> Tensor:
    losses: Tensor = nn.functional.cross_entropy(logits.float(), targets, reduction=reduction)
    return losses


def counted(inputs: Mapping[str, Any], loss: Literal["sequence_sum", "token_mean"]) -> int:
    """Return what a batch's loss is averaged over: its examples, or its target tokens."""
    if "counts" in inputs:
        return len(inputs["counts"] if loss == "sequence_sum" else inputs["targets"])
    labels = inputs["labels"]
    return len(labels) if loss == "sequence_sum" else int((labels != IGNORED).sum())
