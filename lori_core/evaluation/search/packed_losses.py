"""The tasks' losses on validation examples, tokenised once for all candidates of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import InputError
from lori_core.data.example import Example
from lori_core.data.prompts import encode_all
from lori_core.evaluation.held_out import check_finite, row_losses, training_length
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
        rows = [row for task in tasks for row in self.rows[task]]
        found = iter(row_losses(model, rows, pad, params.evaluation.batch_size, what))
        losses = {task: list(islice(found, len(self.rows[task]))) for task in tasks}
        for task, some in losses.items():
            check_finite(self.examples[task], some, f"{what} on {task}", InputError)
        return {task: fmean(some) for task, some in losses.items()}
