"""Report the metrics of each training step to the tracker and the progress bar."""

from __future__ import annotations

import math
import time
from typing import Any

from transformers import TrainerCallback

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
        self.losses = [row["loss"] for row in state.log_history if "loss" in row]
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
