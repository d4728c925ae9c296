"""The tasks' losses on validation examples, in packed batches as in training.

A packed batch has no padding, and a prefix that examples share is computed once, also if they are
of different tasks. Its losses equal those of `held_out_losses` but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from lori_core.core.errors import InputError
from lori_core.core.progress import bar
from lori_core.data.example import Example
from lori_core.data.prompts import encode_all
from lori_core.evaluation.held_out import training_length
from lori_core.merging.learned.descent import batches_of, on_device, takes_packed
from lori_core.methods import limits
from lori_core.training.loss import example_losses

if TYPE_CHECKING:
    from lori_core.methods.loaded_model import LoadedModel


class PackedLosses:
    """Measures losses with a base model, with or without an adapter; tokenises examples once.

    Args:
        session: the loaded base model.
        examples: by task, its validation examples, each with a target.

    Raises:
        ModelError, DataError: as `limits.check_rows`.
    """

    def __init__(self, session: LoadedModel, examples: Mapping[str, Sequence[Example]]) -> None:
        params, tokenizer = session.params, session.tokenizer
        self.session, self.examples = session, examples
        self.rows = {
            task: encode_all(some, params.prompt, tokenizer, training_length(params, task))
            for task, some in examples.items()
        }
        limits.check_rows(self.rows, session.model, tokenizer, params.model.name_or_path)
        self.packed = takes_packed(session.model)

    @torch.inference_mode()
    def means(self, model: Any, tasks: Sequence[str], what: str) -> dict[str, float]:
        """Return the mean loss of each task's examples, nats per example.

        Args:
            model: the session's model, with or without an adapter.
            tasks: the tasks.
            what: the progress bar's name.

        Raises:
            InputError: a loss is not a finite number.
        """
        places = [(task, place) for task in tasks for place in range(len(self.rows[task]))]
        if not self.packed:  # little padding
            places.sort(key=lambda at: len(self.rows[at[0]][at[1]]))
        losses: dict[str, list[float]] = {task: [] for task in tasks}
        session, size = self.session, self.session.params.evaluation.batch_size
        with ExitStack() as stack:
            pad = session.tokenizer.pad_token_id or 0
            make = stack.enter_context(batches_of(session.model, pad, self.packed))
            progress = stack.enter_context(bar(len(places), what, "example"))
            for start in range(0, len(places), size):
                some = places[start : start + size]
                batch = make([self.rows[task][place] for task, place in some])
                found = example_losses(model, on_device(batch, session.model.device)).tolist()
                for (task, place), loss in zip(some, found, strict=True):
                    if not math.isfinite(loss):
                        raise InputError(
                            f"{what} on {task}: the loss of example "
                            f"{self.examples[task][place].id} is {loss}; use model.dtype float32, "
                            "or smaller merge weights"
                        )
                    losses[task].append(loss)
                progress.update(len(some))
        return {task: fmean(some) for task, some in losses.items()}
