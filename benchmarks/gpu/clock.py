"""Times the steps of a training run, and can profile one more step."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
from torch import profiler
from transformers import TrainerCallback

from benchmarks.gpu import kernels
from lori_core.core.tracking import NullTracker

#: The first steps build plans, compile kernels and grow the memory pool; they are not timed.
WARM = 2
#: What is profiled: nothing, the device's work, or also the host's operators (slower).
Profiled = Literal["nothing", "device", "host"]


def synchronize() -> None:
    """Wait until the GPU, if any, has done all work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Clock(NullTracker, TrainerCallback):
    """Times `timed` steps after `WARM` steps; then may profile one step.

    It is a callback of `transformers.Trainer` for the other implementations, and tracker and
    `TrainerOverrides.after_step` for this project's. The device is waited for only at the start and
    at the end of the timed steps.

    Args:
        timed: the number of timed steps.
        profiled: what is profiled.

    Attributes:
        seconds: of all timed steps.
        losses: the logged loss of each step.
        norms: the logged gradient norm of each step.
        passes: the forward passes in the timed steps, as counted by `passed`.
        profile: the device's work in the step after the timed ones, or the error's text.
    """

    def __init__(self, timed: int, profiled: Profiled = "nothing") -> None:
        self.timed, self.profiled = timed, profiled
        self.seconds = 0.0
        self.passes = 0
        self.timing = False
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.profile: kernels.Profile | str | None = None
        self._profiler: Any = None

    @property
    def steps(self) -> int:
        """The number of steps that the run has to make."""
        return WARM + self.timed + (self.profiled != "nothing")

    def stepped(self, step: int) -> None:
        """Note the end of an optimizer step, counted from 1."""
        if step not in (WARM, WARM + self.timed, self.steps):
            return
        synchronize()
        now = time.perf_counter()
        if step == WARM:
            self._started, self.timing = now, True
        elif step == WARM + self.timed:
            self.seconds, self.timing = now - self._started, False
            if self.profiled != "nothing":
                self._profile()
        else:
            self._read()

    def passed(self, *_: Any) -> None:
        """Count a forward pass: a forward hook of the embeddings."""
        self.passes += self.timing

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the end of a step of `transformers.Trainer`."""
        self.stepped(state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Record what `transformers.Trainer` logs."""
        self._log(logs or {})

    def metrics(self, values: Any, step: int | None = None) -> None:
        """Record what this project's training reports."""
        self._log(values)

    def _log(self, values: Any) -> None:
        if "loss" in values:
            self.losses.append(float(values["loss"]))
            self.norms.append(float(values.get("grad_norm", float("nan"))))

    def _profile(self) -> None:
        cuda = torch.cuda.is_available()
        activities = [profiler.ProfilerActivity.CUDA] if cuda else [profiler.ProfilerActivity.CPU]
        if cuda and self.profiled == "host":
            activities.append(profiler.ProfilerActivity.CPU)
        try:
            self._profiler = profiler.profile(activities=activities)
            self._profiler.start()
        except Exception as error:  # the speed is measured already and must not be lost
            self._profiler, self.profile = None, repr(error)
        self._began = time.perf_counter()

    def _read(self) -> None:
        if self._profiler is None:
            return
        seconds = time.perf_counter() - self._began
        try:
            self._profiler.stop()
            self.profile = kernels.read(self._profiler, seconds)
        except Exception as error:
            self.profile = repr(error)
        self._profiler = None
