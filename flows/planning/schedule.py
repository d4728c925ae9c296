"""When each stage would begin and end on G GPUs: the rule of `execution.slots`, played through."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from flows.execution.slots import LIGHT_STAGES
from flows.versioning.graph import Stage


@dataclass(frozen=True)
class Schedule:
    """A run played through.

    Attributes:
        begins: seconds from the start, by stage.
        ends: likewise.
        critical: the stages that the end waits for, in order: each began when the one before it
            ended.
    """

    begins: Mapping[str, float]
    ends: Mapping[str, float]
    critical: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long the run takes."""
        return max(self.ends.values(), default=0.0)


def play(stages: list[Stage], seconds: Mapping[str, float], gpus: int) -> Schedule:
    """Play the stages through, each after those it depends on, in the plan's order.

    Args:
        stages: those that run, each after its dependencies.
        seconds: how long each takes.
        gpus: slots for stages that want one; on a machine without GPUs, 1.
    """
    waiting = {stage.name: stage for stage in stages}
    free = {True: max(1, gpus), False: LIGHT_STAGES}
    # As the slots do: a stage that wants more GPUs than there are gets all of them.
    wants = {stage.name: min(stage.gpus, free[True]) or 1 for stage in stages}
    begins: dict[str, float] = {}
    ends: dict[str, float] = {}
    caused: dict[str, str | None] = {}
    running: list[tuple[float, str]] = []
    now, last = 0.0, None
    heavy = {stage.name: bool(stage.gpus) for stage in stages}
    while waiting or running:
        for stage in list(waiting.values()):
            ready = all(name in ends and ends[name] <= now for name in _inside(stage, heavy))
            if ready and free[heavy[stage.name]] >= wants[stage.name]:
                free[heavy[stage.name]] -= wants[stage.name]
                begins[stage.name], ends[stage.name] = now, now + seconds[stage.name]
                caused[stage.name] = last
                heapq.heappush(running, (ends[stage.name], stage.name))
                del waiting[stage.name]
        now, last = heapq.heappop(running)
        free[heavy[last]] += wants[last]
    return Schedule(begins, ends, _chain(ends, caused))


def _inside(stage: Stage, known: Mapping[str, bool]) -> list[str]:
    return [name for name in stage.dependencies if name in known]


def _chain(ends: Mapping[str, float], caused: Mapping[str, str | None]) -> tuple[str, ...]:
    if not ends:
        return ()
    chain: list[str] = []
    current: str | None = max(ends, key=lambda name: ends[name])
    while current is not None:
        chain.append(current)
        current = caused[current]
    return tuple(reversed(chain))
