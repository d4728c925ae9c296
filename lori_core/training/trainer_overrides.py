"""What a training method changes in the trainer's loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainerOverrides:
    """How a method is trained where that differs from AdamW on a loss.

    Attributes:
        autocast: the precision to compute in, where parameters are kept in another.
        optimizer: model and learning rate -> its own optimizer.
        penalty: added to each batch's loss, a scalar.
        after_step: called with the number of each optimizer step, before gradients are zeroed.
        resumable: whether values, moments and step are all that a checkpoint must hold.
    """

    autocast: torch.dtype | None = None
    optimizer: Callable[[Any, float], torch.optim.Optimizer] | None = None
    penalty: Callable[[], Tensor] | None = None
    after_step: Callable[[int], None] | None = None
    resumable: bool = True

    def computing(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which a forward pass is computed."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast)
