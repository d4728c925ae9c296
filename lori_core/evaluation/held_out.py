"""The loss of each held-out example, as in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from lori_core.config import PromptSection
from lori_core.core.errors import LoriError
from lori_core.core.progress import bar
from lori_core.data.batching import collate
from lori_core.data.example import Example
from lori_core.data.prompts import encode_all
from lori_core.evaluation.inference.generation import length_batches
from lori_core.training.loss import example_losses


@torch.inference_mode()
def held_out_losses(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    prompt_section: PromptSection,
    max_length: int,
    batch_size: int,
    what: str,
) -> tuple[list[float], list[int]]:
    """Return each example's loss as in training, and over how many tokens it is summed.

    With x the prompt and y_1 … y_n the target's tokens, the end-of-sequence token included, an
    example's loss is `-Σ_t log p(y_t | x, y_1 … y_{t-1})` (METHOD, section 5).

    Args:
        model: a causal LM, with or without an adapter.
        tokenizer: its tokenizer.
        examples: what to measure.
        prompt_section: how prompts are rendered, as in training.
        max_length: tokens of prompt and target together; longer examples are cut as in training.
        batch_size: examples computed at once.
        what: the progress bar's name.

    Returns:
        The losses and the token counts, both in the examples' order.

    Raises:
        LoriError: at a loss that is not finite.
    """
    rows = encode_all(examples, prompt_section, tokenizer, max_length)
    losses = [math.nan] * len(rows)
    with bar(len(rows), what, "example") as progress:
        for places in length_batches([len(row) for row in rows], batch_size):
            batch = collate([rows[place] for place in places], tokenizer.pad_token_id)
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            found = example_losses(model, inputs).tolist()
            for place, loss in zip(places, found, strict=True):
                losses[place] = loss
            progress.update(len(places))
    for example, loss in zip(examples, losses, strict=True):
        if not math.isfinite(loss):
            raise LoriError(
                f"{what}: the loss of example {example.id} is {loss}; use model.dtype float32, or "
                "smaller merge weights"
            )
    return losses, [len(row.target) for row in rows]
