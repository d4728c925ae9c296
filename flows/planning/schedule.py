"""Simulate when each stage would start and end on G GPUs, by the rules of `gpu_slots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from flows.execution.gpu_slots import LIGHT_STAGES
from flows.execution.sharing import CARD
from flows.versioning.graph import Stage


@dataclass(frozen=True)
class Schedule:
    """A simulated run.

    Attributes:
        begins: when each stage starts, in seconds from the run's start.
        ends: when each stage ends, likewise.
        critical: the critical path: each stage starts when the one before it ends.
    """

    begins: Mapping[str, float]
    ends: Mapping[str, float]
    critical: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """The time of the run."""
        return max(self.ends.values(), default=0.0)


def simulate(
    stages: list[Stage],
    seconds: Mapping[str, float],
    gpus: int,
    parts: Mapping[str, int] = MappingProxyType({}),
    begin: float = 0.0,
) -> Schedule:
    """Simulate the run of stages, each after its dependencies, the first that fits first.

    While n stages compute on one GPU, each takes n times as long.

    Args:
        stages: the stages that run, the most urgent one first (`graph.urgent_first`).
        seconds: the time of each stage if it runs alone.
        gpus: the number of GPUs; on a machine without GPUs, 1.
        parts: the part of a GPU that a stage gets, out of `sharing.CARD`; by default all of it.
        begin: the first seconds of each stage in which it starts and loads without using the GPU.
    """
    machine = _Machine([CARD] * max(1, gpus))
    waiting = {stage.name: stage for stage in stages}
    begins: dict[str, float] = {}
    ends: dict[str, float] = {}
    caused: dict[str, str | None] = {}
    now, last = 0.0, None
    known = frozenset(waiting)
    while waiting or machine.running:
        for stage in list(waiting.values()):
            ready = all(name in ends for name in stage.dependencies if name in known)
            alone = seconds[stage.name]
            work = _Work(min(begin, alone), max(0.0, alone - begin), parts.get(stage.name, CARD))
            if ready and machine.started(stage, work):
                begins[stage.name], caused[stage.name] = now, last
                del waiting[stage.name]
        passed, last = machine.next_end()
        now += passed
        ends[last] = now
    return Schedule(begins, ends, _chain(ends, caused))


@dataclass
class _Work:
    """The remaining work of a stage.

    Attributes:
        begin: remaining seconds before it uses its GPUs.
        compute: remaining seconds of computation, if it had its GPUs to itself.
        parts: the part of each GPU that it takes.
        cards: the GPUs that it runs on.
    """

    begin: float
    compute: float
    parts: int
    cards: Sequence[int] = ()


@dataclass
class _Machine:
    """The free parts of each card, the free slots for light stages, and the running stages."""

    free: list[int]
    light: int = LIGHT_STAGES
    running: dict[str, _Work] = field(default_factory=dict)

    def started(self, stage: Stage, work: _Work) -> bool:
        """Start a stage on the freest cards if there is room; return whether it was started."""
        fitting = [card for card, free in enumerate(self.free) if free >= work.parts]
        # A stage that wants more GPUs than there are gets all of them.
        wanted = min(stage.gpus, len(self.free))
        if len(fitting) < wanted or (not wanted and not self.light):
            return False
        work.cards = sorted(fitting, key=lambda card: -self.free[card])[:wanted]
        for card in work.cards:
            self.free[card] -= work.parts
        self.light -= not wanted
        self.running[stage.name] = work
        return True

    def next_end(self) -> tuple[float, str]:
        """Advance the time until a stage ends; return the seconds passed and the stage."""
        passed = 0.0
        while True:
            rates = {name: self._rate(work) for name, work in self.running.items()}
            left = {name: (w.begin or w.compute / rates[name]) for name, w in self.running.items()}
            step, name = min((left[name], name) for name in left)
            passed += step
            for other, work in self.running.items():
                if work.begin:
                    work.begin = 0.0 if left[other] == step else work.begin - step
                else:
                    done = left[other] == step
                    work.compute = 0.0 if done else work.compute - step * rates[other]
            work = self.running[name]
            if not work.begin and not work.compute:
                for card in work.cards:
                    self.free[card] += work.parts
                self.light += not work.cards
                del self.running[name]
                return passed, name

    def _rate(self, work: _Work) -> float:
        """Return the share of its GPUs' time that a stage gets while it computes."""
        others = [w for w in self.running.values() if set(w.cards) & set(work.cards)]
        return 1 / max(1, sum(not w.begin for w in others))


def _chain(ends: Mapping[str, float], caused: Mapping[str, str | None]) -> tuple[str, ...]:
    if not ends:
        return ()
    chain: list[str] = []
    current: str | None = max(ends, key=lambda name: ends[name])
    while current is not None:
        chain.append(current)
        current = caused[current]
    return tuple(reversed(chain))
