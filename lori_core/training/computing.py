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
from lori_core.training.kernels import lora_linear, packed_attention, pointwise
from lori_core.training.loss import changes_logits
from lori_core.training.passes import Packer
from lori_core.training.token_budget import token_budget


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
    if changes_logits(base):
        reason: str | None = "it changes its logits after the output layer"
    else:
        reason = packed_attention.unsupported_reason(base)
    collate: Any = partial(pack_batch, share=not draws_dropout(model))
    if reason is not None:
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


def draws_dropout(model: Any) -> bool:
    """Return whether training draws dropout; then examples cannot share a common prefix."""
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    config = model.config.get_text_config()
    return any(rates) or bool(getattr(config, "attention_dropout", 0))


@contextmanager
def computing(
    model: Any, base: Any, *, packs: bool = True, sharded: bool = False
) -> Iterator[None]:
    """Install the training kernels on a PEFT model and its base inside a `with` block.

    With `packs`, batches are packed; with `sharded` (FSDP), only attention is replaced.
    """
    with ExitStack() as kernels:
        if packs:
            kernels.enter_context(packed_attention.attending(base))
        if not sharded:
            kernels.enter_context(lora_linear.installed(model))
            kernels.enter_context(pointwise.installed(model))
        yield
