"""How stages share a GPU: the part of a card that each takes, by the memory it is forecast to need.

A stage's part is that of its memory in the card's, or 1 / n of the card where the machine bears n
stages beside each other on it, whichever is more. A stage whose memory is not known, that needs
several GPUs, or more than a card has, takes whole cards.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lori_core.core.processes.allotment import MEMORY, THREADS

#: The parts of a whole card: Ray, too, counts a GPU in ten thousandths.
CARD = 10_000
#: Bytes that each process has on a GPU besides what torch allocates: CUDA's context.
CONTEXT = 0.5e9
#: A forecast is taken for too low by this factor, and by so many bytes at least.
HEADROOM, LEAST_HEADROOM = 1.1, 0.1e9
#: What a stage takes of the machine's own memory, with the libraries of CUDA in it.
PROCESS = 4e9
#: How many stages are taken to be on each GPU of a machine that is not this one.
USUAL = 12
#: Among how many stages the cores of each GPU are shared out, where no number is set.
SIDE_BY_SIDE = 4
#: A cgroup's limit on processors: microseconds of so many.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Share:
    """What a stage gets of one card.

    Attributes:
        parts: of `CARD`.
        memory: bytes that torch may allocate; 0 for all that there are.
        threads: for work on the processor; 0 for as many as torch takes by itself.
    """

    parts: int = CARD
    memory: int = 0
    threads: int = 0

    @property
    def whole(self) -> bool:
        """Whether the card is for this stage alone."""
        return self.parts >= CARD

    def variables(self) -> dict[str, str]:
        """Return what the stage's process reads (`lori_core.core.processes.allotment`)."""
        said = {MEMORY: self.memory, THREADS: self.threads}
        return {name: str(value) for name, value in said.items() if value}


WHOLE = Share()


def shares(memory: Mapping[str, float], card: float, most: int) -> dict[str, Share]:
    """Return the shares of stages that need one GPU; one that is left out takes a whole card.

    Args:
        memory: by stage, the bytes that torch is forecast to allocate, where that is known.
        card: bytes of a card that are free.
        most: stages that may run on a card at once.
    """
    found = {}
    for stage, size in memory.items():
        needed = max(HEADROOM * size, size + LEAST_HEADROOM + CONTEXT)
        if needed <= card and most > 1:
            parts = max(math.ceil(CARD * needed / card), CARD // most)
            found[stage] = Share(parts, int(card * parts / CARD - CONTEXT))
    return found


def threads(setting: int | str, gpus: int, available: int) -> int:
    """Return how many threads a stage on a GPU gets for work on the processor.

    It follows from the machine and the settings alone, never from what else is running: the number
    of threads decides the last bits of some sums.

    Args:
        setting: `execution.share_gpus`.
        gpus: how many cards there are.
        available: cores of the machine.
    """
    return max(1, available // (gpus * (setting if isinstance(setting, int) else SIDE_BY_SIDE)))


def cores() -> int:
    """Return how many processors this process may use, by its affinity and its cgroup's limit."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such limit
        return count


@dataclass(frozen=True)
class Host:
    """The machine around the GPUs: its cores, how busy they are (0 to 1), its free memory."""

    cores: int
    busy: float
    memory: float

    def bears(self, setting: int | str, gpus: int) -> int:
        """Return how many stages may run on each GPU: each takes an idle core, and memory.

        Args:
            setting: `execution.share_gpus`; a number is taken as it is.
            gpus: how many cards there are.
        """
        if isinstance(setting, int):
            return setting
        idle = self.cores * (1 - self.busy)
        return max(1, int(min(idle, self.memory / PROCESS)) // max(1, gpus))


def this_host(seconds: float = 0.5) -> Host:
    """Look at this machine; how busy it is, is measured for so long."""
    import psutil

    return Host(
        cores(),
        psutil.cpu_percent(interval=seconds) / 100,
        float(psutil.virtual_memory().available),
    )
