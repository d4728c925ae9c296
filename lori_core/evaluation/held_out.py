"""Losses of held-out examples, computed as in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lori_core.config import Params, PromptSection
from lori_core.core.errors import LoriError
from lori_core.core.progress import bar
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode_all
from lori_core.evaluation.inference.generation import length_batches
from lori_core.training.kernels.packed_batches import batches_of, on_device, takes_packed
from lori_core.training.loss import example_losses

if TYPE_CHECKING:
    from lori_core.methods.loaded_model import LoadedModel


def held_out_losses(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    prompt_section: PromptSection,
    max_length: int,
    batch_size: int,
    what: str,
) -> tuple[list[float], list[int]]:
    """Return each example's summed loss (nats) and the number of target tokens it is summed over.

    With x the prompt and y_1 … y_n the target's tokens, the end-of-sequence token included, an
    example's loss is `-Σ_t log p(y_t | x, y_1 … y_{t-1})` (paper, section 3.1).

    Args:
        model: a causal LM, with or without an adapter.
        tokenizer: its tokenizer.
        examples: the held-out examples.
        prompt_section: the prompt template, as in training.
        max_length: tokens of prompt and target together; longer examples are truncated as in
            training.
        batch_size: examples in a batch.
        what: the progress bar's name.

    Returns:
        The losses and the token counts, both in the examples' order.

    Raises:
        LoriError: a loss is not finite.
    """
    rows = encode_all(examples, prompt_section, tokenizer, max_length)
    losses = row_losses(model, rows, tokenizer.pad_token_id or 0, batch_size, what)
    check_finite(examples, losses, what)
    return losses, [row.supervised for row in rows]


def check_finite(
    examples: Sequence[Example],
    losses: Sequence[float],
    what: str,
    error: type[LoriError] = LoriError,
) -> None:
    """Refuse losses that are NaN or infinite with an error that names the first such example."""
    for example, loss in zip(examples, losses, strict=True):
        if not math.isfinite(loss):
            raise error(
                f"{what}: the loss of example {example.id} is {loss}; use model.dtype float32, or "
                "smaller merge weights"
            )


@torch.inference_mode()
def row_losses(
    model: Any, rows: Sequence[Encoded], pad_token_id: int, batch_size: int, what: str
) -> list[float]:
    """Return the summed loss (nats) of each tokenised example, in order; see `held_out_losses`.

    Batches are packed as in training where the model takes them: without padding, and with each
    prefix that examples of a batch share computed once.

    Args:
        model: a causal LM, with or without an adapter.
        rows: the tokenised examples.
        pad_token_id: pads the batches of models that take no packed ones.
        batch_size: examples in a batch.
        what: the progress bar's name.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    packed = takes_packed(base)
    losses = [math.nan] * len(rows)
    with batches_of(base, pad_token_id, packed) as make, bar(len(rows), what, "example") as shown:
        for places in _batches([len(row) for row in rows], batch_size, packed):
            batch = on_device(make([rows[place] for place in places]), model.device)
            batch_losses = example_losses(model, batch).tolist()
            for place, loss in zip(places, batch_losses, strict=True):
                losses[place] = loss
            shown.update(len(places))
    return losses


def _batches(lengths: Sequence[int], size: int, packed: bool) -> Sequence[Sequence[int]]:
    """Return the rows of each batch: in order for packed batches, else of similar lengths."""
    if not packed:
        return length_batches(lengths, size)
    return [range(start, min(start + size, len(lengths))) for start in range(0, len(lengths), size)]


def task_losses(
    session: LoadedModel, model: Any, task: str, examples: Sequence[Example], what: str
) -> tuple[list[float], list[int]]:
    """Return `held_out_losses` of a task's examples, truncated as in its training.

    Args:
        session: gives tokenizer and parameters.
        model: the session's model, with or without an adapter.
        task: the task; one that is not in the parameters is truncated by `training.max_length`.
        examples: the held-out examples.
        what: the progress bar's name, before the task's.

    Raises:
        LoriError: a loss is not finite.
    """
    params = session.params
    return held_out_losses(
        model,
        session.tokenizer,
        examples,
        params.prompt,
        training_length(params, task),
        params.evaluation.batch_size,
        f"{what} on {task}",
    )


def training_length(params: Params, task: str) -> int:
    """Return the most tokens of an example in a task's training."""
    section = params.phase(task, "training") if task in params.tasks else params.training
    return section.max_length
