"""Slots that decide which stages may run now.

Stages start when they fit on the GPUs, those first that the most other stages depend on. On a
machine without GPUs, the machine takes a card's place: one stage that would use a GPU runs at a
time, or several with a share each. A few stages that need no GPU may run beside the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from flows.execution.sharing import CARD
from lori_core.core.errors import InputError

if TYPE_CHECKING:
    from flows.versioning.graph import Stage

#: Stages that need no GPU may run beside the others, but not many: they share the cores.
LIGHT_STAGES = 2


class StoppedError(Exception):
    """The pipeline is being stopped, so no new stage may start."""


def visible_gpus() -> list[str]:
    """Return the GPUs this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Reads the variable, then `nvidia-smi -L`; never imports torch.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))] if listed.returncode == 0 else []


@dataclass(frozen=True)
class Card:
    """A GPU: its free memory in bytes, and whether it has bf16 arithmetic."""

    memory: float
    bfloat16: bool


def smallest_card(gpus: list[str]) -> Card | None:
    """Return the memory and arithmetic that all these GPUs have; None if the driver fails.

    Args:
        gpus: as `CUDA_VISIBLE_DEVICES` names them, by number or the beginning of the UUID.
    """
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.free,compute_cap"]
    try:
        listing = subprocess.run(
            [*query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        rows = [[word.strip() for word in line.split(",")] for line in listing.splitlines()]
        cards = [
            (float(free) * 2**20, float(capability) >= 8)
            for name in gpus
            for index, uuid, free, capability in rows
            if name == index or (not name.isdecimal() and uuid.startswith(name))
        ]
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if not cards or len(cards) != len(gpus):
        return None
    return Card(min(free for free, _ in cards), all(bfloat16 for _, bfloat16 in cards))


def allowed_gpus(setting: int | str) -> list[str]:
    """Return the GPUs a pipeline may use: all visible ones (`auto`), or the first `setting`."""
    visible = visible_gpus()
    return visible[:setting] if isinstance(setting, int) else visible


def check_room(stages: Iterable[Stage], most: int, where: str) -> None:
    """Refuse a stage that needs more GPUs than it can ever get.

    Args:
        stages: the stages that would run.
        most: the most GPUs that one stage can get; 0 on a machine without GPUs, where stages
            take turns.
        where: the machine or node that has `most` GPUs, and its setting, for the message.

    Raises:
        InputError: a stage needs more GPUs; the message names the stage.
    """
    for stage in stages:
        if most and stage.gpus > most:
            raise InputError(
                f"training.processes: {stage.name} needs {stage.gpus} GPUs at once, a GPU for each "
                f"process, and {where} has {most}; lower it"
            )


class _Waiting(NamedTuple):
    """A stage that waits for devices; the smallest one that fits starts first."""

    rank: int
    number: int
    gpus: int
    parts: int


class GpuSlots:
    """Hands out GPUs, or the machine as one device if it has none."""

    def __init__(self, gpus: list[str], stop: threading.Event) -> None:
        self.gpus = gpus
        self._free = dict.fromkeys(gpus or [""], CARD)
        self._light = LIGHT_STAGES
        self._stop = stop
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._number = count()

    @contextmanager
    def hold(self, gpus: int, parts: int = CARD, dependents: int = 0) -> Iterator[str]:
        """Wait for `gpus` devices; yield the value of `CUDA_VISIBLE_DEVICES`, empty for none.

        A stage that wants more GPUs than the machine has gets all of them.

        Args:
            gpus: the number of GPUs.
            parts: the part of each GPU, in units of 1 / `sharing.CARD`.
            dependents: how many stages depend on this one; of the waiting stages that fit, the one
                with the most starts first.

        Raises:
            StoppedError: the pipeline was stopped while this call waited.
        """
        wanted = min(gpus, len(self._free))
        taken = self._take(_Waiting(-dependents, next(self._number), wanted, parts))
        try:
            yield ",".join(device for device in taken if device)
        finally:
            with self._changed:
                for device in taken:
                    self._free[device] += parts
                self._light += wanted == 0
                self._changed.notify_all()

    def wake(self) -> None:
        """Wake the waiting stages, so that they check the stop signal."""
        with self._changed:
            self._changed.notify_all()

    def _take(self, stage: _Waiting) -> list[str]:
        with self._changed:
            self._waiting.append(stage)
            try:
                self._changed.wait_for(lambda: self._stop.is_set() or self._is_next(stage))
                if self._stop.is_set():
                    raise StoppedError
                self._light -= stage.gpus == 0
                taken = self._fitting(stage.parts)[: stage.gpus]
                for device in taken:
                    self._free[device] -= stage.parts
                return taken
            finally:
                self._waiting.remove(stage)
                self._changed.notify_all()

    def _is_next(self, stage: _Waiting) -> bool:
        return stage == min(filter(self._fits, self._waiting), default=None)

    def _fits(self, stage: _Waiting) -> bool:
        if stage.gpus == 0:
            return self._light > 0
        return len(self._fitting(stage.parts)) >= stage.gpus

    def _fitting(self, parts: int) -> list[str]:
        """Return the devices with at least `parts` free, the freest device first."""
        fitting = [device for device, free in self._free.items() if free >= parts]
        return sorted(fitting, key=lambda device: -self._free[device])
