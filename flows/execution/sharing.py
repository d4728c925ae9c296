"""How stages share a GPU: the part of a card that each stage gets, by its forecast memory.

A stage's part is its forecast memory divided by the card's memory, but at least 1 / n if the
machine can run n stages on a card at once. A stage gets whole cards if its memory is not known, if
it needs several GPUs, or if it needs more memory than a card has.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lori_core.core.processes.allotment import MEMORY, THREADS

#: The number of parts of a whole card: Ray, too, counts a GPU in ten thousandths.
CARD = 10_000
#: Bytes of CUDA's context, which each process has on a GPU besides what torch allocates.
CONTEXT = 0.5e9
#: Reserve on top of a forecast: a factor, and the least number of bytes.
HEADROOM, LEAST_HEADROOM = 1.1, 0.1e9
#: Host memory of a stage's process in bytes, with CUDA's libraries.
PROCESS = 4e9
#: The assumed number of stages on each GPU of another machine.
USUAL = 12
#: The number of stages among which the cores of each GPU are divided, if the setting is `auto`.
SIDE_BY_SIDE = 4
#: A cgroup's limit on CPU time: quota and period in microseconds.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Share:
    """The part of one card, or of a machine without GPUs, that a stage gets.

    Attributes:
        parts: out of `CARD`.
        memory: bytes that torch may allocate; 0 for no limit.
        threads: threads for work on the CPU; 0 for torch's default.
    """

    parts: int = CARD
    memory: int = 0
    threads: int = 0

    @property
    def whole(self) -> bool:
        """Whether the stage has the card, or the machine without GPUs, to itself."""
        return self.parts >= CARD

    def variables(self) -> dict[str, str]:
        """Return the environment variables that `lori_core.core.processes.allotment` reads."""
        limits = {MEMORY: self.memory, THREADS: self.threads}
        return {name: str(value) for name, value in limits.items() if value}


WHOLE = Share()


def shares(memory: Mapping[str, float], card: float, most: int) -> dict[str, Share]:
    """Return the shares of stages that need one GPU; a stage that is left out gets a whole card.

    Args:
        memory: by stage, the bytes that torch is forecast to allocate, where that is known.
        card: free memory of a card in bytes.
        most: the most stages that may run on a card at once.
    """
    result = {}
    for stage, size in memory.items():
        needed = max(HEADROOM * size, size + LEAST_HEADROOM + CONTEXT)
        if needed <= card and most > 1:
            parts = max(math.ceil(CARD * needed / card), CARD // most)
            result[stage] = Share(parts, int(card * parts / CARD - CONTEXT))
    return result


def threads(setting: int | str, gpus: int, available: int) -> int:
    """Return the number of threads that a stage on a GPU gets for work on the CPU.

    The number depends only on the machine and the settings, never on what else is running, because
    it decides the last bits of some sums.

    Args:
        setting: `execution.share_gpus`.
        gpus: the number of cards.
        available: the number of the machine's cores.
    """
    return max(1, available // (gpus * (setting if isinstance(setting, int) else SIDE_BY_SIDE)))


def cpu_share(stages: int, available: int) -> Share:
    """Return the share of a stage on a machine without GPUs.

    Args:
        stages: the number of stages that run at once (`execution.cpu_stages`).
        available: the number of the machine's cores.
    """
    if stages == 1:
        return WHOLE
    return Share(parts=CARD // stages, threads=max(1, available // stages))


def cores() -> int:
    """Return how many CPU cores this process may use, by its affinity and its cgroup's limit."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such limit
        return count


@dataclass(frozen=True)
class Host:
    """The host of the GPUs: its cores, their load (0 to 1), its free memory in bytes."""

    cores: int
    busy: float
    memory: float

    def stages_per_gpu(self, setting: int | str, gpus: int) -> int:
        """Return how many stages may run on each GPU: each needs an idle core and host memory.

        Args:
            setting: `execution.share_gpus`; a number is returned as it is.
            gpus: the number of cards.
        """
        if isinstance(setting, int):
            return setting
        idle = self.cores * (1 - self.busy)
        return max(1, int(min(idle, self.memory / PROCESS)) // max(1, gpus))


def this_host(seconds: float = 0.5) -> Host:
    """Return this machine's cores, load and free memory; the load is measured for `seconds`."""
    import psutil

    return Host(
        cores(),
        psutil.cpu_percent(interval=seconds) / 100,
        float(psutil.virtual_memory().available),
    )
