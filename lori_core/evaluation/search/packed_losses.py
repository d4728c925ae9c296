"""The tasks' losses on validation examples, tokenised once for all candidates of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import InputError
from lori_core.data.example import Example
from lori_core.data.prompts import encode_all
from lori_core.evaluation.held_out import row_losses, training_length
from lori_core.methods import limits

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

    def means(self, model: Any, tasks: Sequence[str], what: str) -> dict[str, float]:
        """Return the mean loss of each task's examples, nats per example.

        Args:
            model: the session's model, with or without an adapter.
            tasks: the tasks.
            what: the progress bar's name.

        Raises:
            InputError: a loss is not a finite number.
        """
        params, pad = self.session.params, self.session.tokenizer.pad_token_id or 0
        places = [(task, place) for task in tasks for place in range(len(self.rows[task]))]
        rows = [self.rows[task][place] for task, place in places]
        found = row_losses(model, rows, pad, params.evaluation.batch_size, what)
        losses: dict[str, list[float]] = {task: [] for task in tasks}
        for (task, place), loss in zip(places, found, strict=True):
            if not math.isfinite(loss):
                raise InputError(
                    f"{what} on {task}: the loss of example {self.examples[task][place].id} is "
                    f"{loss}; use model.dtype float32, or smaller merge weights"
                )
            losses[task].append(loss)
        return {task: fmean(some) for task, some in losses.items()}
