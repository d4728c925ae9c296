"""Report the metrics of each training step; on a GPU, while it computes the next step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerState

from lori_core.core.errors import DivergedError
from lori_core.core.progress import bar
from lori_core.core.tracking import RunTracker
from lori_core.training.memory import memory_gb


class StepReport(TrainerCallback):
    """Reports each step to the tracker and the progress bar; stops at a gradient that diverged.

    Args:
        tracker: receives loss, learning rate, tokens per second, memory and gradient norm.
        what: the progress bar's name.
        tokens_per_example: the mean length of an example, in tokens.
    """

    def __init__(self, tracker: RunTracker, what: str, tokens_per_example: float) -> None:
        self.tracker = tracker
        self.what = what
        self.tokens_per_example = tokens_per_example
        self.progress: Any = None
        self.losses: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the progress bar at the step that training starts from."""
        self.losses = losses_of(state)
        self.progress = bar(state.max_steps, self.what, "step", done=state.global_step)
        self.started, self.first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Report a step.

        Raises:
            DivergedError: the gradient's norm is not finite.
        """
        if "loss" not in (logs or {}):
            return
        self.losses.append(logs["loss"])
        seconds = time.monotonic() - self.started
        batch = args.train_batch_size * args.gradient_accumulation_steps
        done = (state.global_step - self.first) * batch * self.tokens_per_example
        row = {
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": done / max(seconds, 1e-9),
            "memory_gb": memory_gb(),
        }
        if "grad_norm" in logs:
            row["grad_norm"] = float(logs["grad_norm"])
            if not math.isfinite(row["grad_norm"]):  # before this step's checkpoint is written
                raise DivergedError(
                    f"training step {state.global_step}: the gradient's norm is "
                    f"{row['grad_norm']}; lower training.learning_rate (the last good checkpoint "
                    "is kept)"
                )
        self.tracker.metrics(row, step=state.global_step)
        self.progress.set_postfix(loss=f"{logs['loss']:.3g}", refresh=False)
        self.progress.update(state.global_step - self.progress.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the progress bar."""
        self.progress.close()


class AfterStep(TrainerCallback):
    """Calls the overrides' `after_step` after each optimizer step."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self.call = call

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.call(state.global_step + 1)


def check_finite(loss: float, step: int) -> None:
    """Raise `DivergedError` if the loss of a step is not finite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"training step {step}: the loss is {loss}; lower training.learning_rate (the last "
            "good checkpoint is kept)"
        )


def losses_of(state: TrainerState) -> list[float]:
    """Return the losses of the steps so far."""
    return [row["loss"] for row in state.log_history if "loss" in row]


def reads_late(device: torch.device) -> bool:
    """Return whether the loss of a step is read only when the next step has been launched."""
    return device.type == "cuda"


class _Number:
    """A number that is copied from a device while the host goes on."""

    def __init__(self, value: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if value.is_cuda:
            self._host = torch.empty_like(value, device="cpu", pin_memory=True)
            self._host.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = value.clone()

    def read(self) -> float:
        """Return the number; wait for the device if it is not there yet."""
        if self._event is not None:
            self._event.synchronize()
        return float(self._host)


@dataclass(frozen=True)
class PendingStep:
    """A step that has been launched and not yet been reported.

    Attributes:
        step: the number of the optimizer step.
        epoch: the epochs done after it.
        loss: its loss.
        grad_norm: the norm of its gradient before clipping, if known.
        learning_rate: its learning rate.
    """

    step: int
    epoch: float | None
    loss: _Number
    grad_norm: _Number | None
    learning_rate: float | None

    @classmethod
    def of(
        cls,
        step: int,
        epoch: float | None,
        loss: Tensor,
        grad_norm: Tensor | float | None,
        learning_rate: float | None,
    ) -> PendingStep:
        """Start to copy the numbers of a step to the host."""
        norm = None if grad_norm is None else _Number(torch.as_tensor(grad_norm))
        return cls(step, epoch, _Number(loss.detach()), norm, learning_rate)

    def row(self) -> dict[str, float]:
        """Return the metrics of the step; wait for the device if it still computes them."""
        row = {"loss": self.loss.read()}
        if self.grad_norm is not None:
            row["grad_norm"] = self.grad_norm.read()
        if self.learning_rate is not None:
            row["learning_rate"] = self.learning_rate
        return row


@dataclass(frozen=True)
class TrainingResult:
    """The statistics of a training run.

    Attributes:
        trainable_parameters: the number of trained parameters.
        steps: optimizer steps.
        examples: examples of the data set.
        tokens: tokens of the data set, prompts included.
        supervised_tokens: target tokens of the data set.
        cut_examples: examples that were truncated to `training.max_length`.
        first_loss: the mean loss of the first tenth of the steps.
        last_loss: the mean loss of the last tenth of the steps.
    """

    trainable_parameters: int
    steps: int
    examples: int
    tokens: int
    supervised_tokens: int
    cut_examples: int
    first_loss: float
    last_loss: float
