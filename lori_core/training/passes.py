"""Pack the passes of optimizer steps in a thread, while the device computes earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from lori_core.data import passes
from lori_core.data.prompts import Encoded
from lori_core.training import distributed
from lori_core.training.token_budget import TokenBudget


class StepBatch:
    """The examples that a process computes between two optimizer steps, or a batch of them.

    Attributes:
        rows: the examples.
        batches: the number of batches of `training.batch_size` examples that it holds.
        dummy: whether it is a dummy batch that keeps ranks in step; its loss is zeroed.
    """

    def __init__(self, packer: Packer, rows: Sequence[Encoded], batches: int, dummy: bool) -> None:
        self.batches, self.dummy = batches, dummy
        self.rows, self._packer = rows, packer
        self._limit = packer.budget.tokens
        self._parts: Future[list[dict[str, Any]]] = packer.submit(rows)

    def parts(self) -> list[dict[str, Any]]:
        """Return the collated passes, on the CPU; they follow the current token budget."""
        if self._limit != self._packer.budget.tokens:
            self._limit = self._packer.budget.tokens
            self._parts = self._packer.submit(self.rows)
        return self._parts.result()


class Packer:
    """A data collator that splits the examples of a step into passes and packs them in a thread.

    The data loader is one step ahead, so a step's passes are packed during the step before. Use it
    as a context manager, which ends the thread.

    Args:
        collate: packs or pads the examples of one pass.
        packed: whether `collate` packs.
        budget: the most tokens of a pass.
        batch_size: `training.batch_size`.
        group: the process group; each process computes its part of the examples.
        pinned: whether passes are copied to page-locked memory, from which copies to a GPU do not
            block the host.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[Encoded]], dict[str, Any]],
        *,
        packed: bool,
        budget: TokenBudget,
        batch_size: int,
        group: distributed.Group | None = None,
        pinned: bool = False,
    ) -> None:
        self.collate, self.packed, self.budget = collate, packed, budget
        self.batch_size, self.group, self.pinned = batch_size, group, pinned
        self._thread = ThreadPoolExecutor(1, "lori-packing")

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __call__(self, rows: Sequence[Encoded]) -> StepBatch:
        """Return the examples of a step as this process computes them."""
        batches = -(-len(rows) // self.batch_size)
        part, dummy = (rows, False) if self.group is None else self.group.share(rows)
        return StepBatch(self, part, batches, dummy)

    def submit(self, rows: Sequence[Encoded]) -> Future[list[dict[str, Any]]]:
        """Start to split and pack examples; the future's result is the passes."""
        return self._thread.submit(self._pack, rows, self.budget.tokens)

    def _pack(self, rows: Sequence[Encoded], tokens: int | None) -> list[dict[str, Any]]:
        parts = passes.split(rows, tokens, self.collate, packed=self.packed)
        if self.pinned:
            parts = [{name: _pinned(value) for name, value in part.items()} for part in parts]
        return parts


def _pinned(value: Any) -> Any:
    return value.pin_memory() if isinstance(value, Tensor) else value
