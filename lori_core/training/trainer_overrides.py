"""What a training method changes in the training loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainerOverrides:
    """How a method's training differs from minimising the loss with AdamW.

    Attributes:
        autocast: the dtype of autocast; None computes in the parameters' own dtypes.
        optimizer: returns the optimizer for a model and a learning rate; None for AdamW.
        penalty: returns a scalar that is added to the loss of each optimizer step, once.
        after_step: called with the number of each optimizer step, before gradients are zeroed.
        resumable: whether checkpoints, which hold parameters, optimizer and step, are complete.
    """

    autocast: torch.dtype | None = None
    optimizer: Callable[[Any, float], torch.optim.Optimizer] | None = None
    penalty: Callable[[], Tensor] | None = None
    after_step: Callable[[int], None] | None = None
    resumable: bool = True

    def computing(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context manager for forward passes: autocast, or one without effect."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast)
