"""Choose how a model computes: packed or padded batches, and the training kernels."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from lori_core.config import TrainingSection
from lori_core.data.batching import collate as padded_batch
from lori_core.data.packing import pack_batch
from lori_core.training import distributed
from lori_core.training.kernels import (
    flat_values,
    liger,
    lora_linear,
    packed_attention,
    pointwise,
    variable_length,
)
from lori_core.training.kernels.flat_values import FlatValues
from lori_core.training.kernels.packed_batches import changes_logits
from lori_core.training.passes import Packer
from lori_core.training.token_budget import token_budget

#: With variable-length attention, sharing prefixes costs copies of queries, keys, values and
#: outputs in each layer. They take about as long as the linear layers need for this share of the
#: tokens: 20 KB to copy in each direction against 0.9 GFLOP, for the shapes of Llama-3-8B.
LEAST_SHARED = 0.03


def packer_of(
    model: Any,
    base: Any,
    pad_token_id: int,
    section: TrainingSection,
    group: distributed.Group | None,
) -> Packer:
    """Return the data collator: of packed batches if the model supports them, else of padded ones.

    Args:
        model: the model to train.
        base: the base model inside it.
        pad_token_id: pads batches.
        section: gives batch size and token budget.
        group: the process group, if any.
    """
    collate, reason = _packing(model, base)
    if collate is None:
        print(f"training on padded batches, not packed ones: {reason}", file=sys.stderr, flush=True)
        collate = partial(padded_batch, pad_token_id=pad_token_id)
    cuda = torch.cuda.is_available()
    return Packer(
        collate,
        packed=reason is None,
        budget=token_budget(model, section, torch.device("cuda" if cuda else "cpu")),
        batch_size=section.batch_size,
        group=group,
        pinned=cuda,
    )


def _packing(model: Any, base: Any) -> tuple[Any, str | None]:
    """Return the function that packs batches; or None, and why the model cannot take them."""
    if changes_logits(base):
        return None, "it changes its logits after the output layer"
    dropout = draws_dropout(model)
    if not dropout:
        failed = variable_length.unsupported_reason(base)
        failed = failed or packed_attention.unsupported_reason(base, padded=False)
        if failed is None:
            return partial(pack_batch, padded=False, least_shared=LEAST_SHARED), None
        if next(base.parameters()).is_cuda:
            print(f"attention by groups, not variable-length attention: {failed}", file=sys.stderr)
    reason = packed_attention.unsupported_reason(base)
    return (partial(pack_batch, share=not dropout) if reason is None else None), reason


def draws_dropout(model: Any) -> bool:
    """Return whether training draws dropout; then examples cannot share a common prefix."""
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    config = model.config.get_text_config()
    return any(rates) or bool(getattr(config, "attention_dropout", 0))


@contextmanager
def computing(
    model: Any, base: Any, *, packs: bool = True, sharded: bool = False
) -> Iterator[FlatValues | None]:
    """Install the training kernels on a PEFT model and its base inside a `with` block.

    With `packs`, batches are packed; with `sharded` (FSDP), only attention is replaced.

    Yields:
        The trained values as one tensor, whose `begin_pass` comes before each forward pass and
        whose `end_step` comes after the last backward pass of a step; None where they are not.
    """
    with ExitStack() as kernels:
        kernels.enter_context(_without_cudnn())
        if packs:
            kernels.enter_context(packed_attention.attending(base))
        flat = None
        if not sharded:
            kernels.enter_context(lora_linear.installed(model))
            kernels.enter_context(pointwise.installed(model))
            kernels.enter_context(liger.rotating(model))
            flat = kernels.enter_context(flat_values.installed(model))
        yield flat


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Turn cuDNN's attention off, which builds a plan of 0.1 to 0.2 s for each new shape."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
