"""When each stage would begin and end on G GPUs: the rule of `execution.slots`, played through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from flows.execution.gpu_slots import LIGHT_STAGES
from flows.execution.sharing import CARD
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


def play(
    stages: list[Stage],
    seconds: Mapping[str, float],
    gpus: int,
    parts: Mapping[str, int] = MappingProxyType({}),
    begin: float = 0.0,
) -> Schedule:
    """Play the stages through, each after those it depends on, in the plan's order.

    What stages compute on a GPU that they share takes as many times longer as they are then.

    Args:
        stages: those that run, each after its dependencies.
        seconds: how long each takes, alone.
        gpus: slots for stages that want one; on a machine without GPUs, 1.
        parts: what a stage takes of a GPU, of `sharing.CARD`; all of it unless given.
        begin: how many of each one's first seconds are not the GPU's: it starts and loads.
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
    """What is left of a stage: seconds before it computes, seconds alone on its GPUs; its parts."""

    begin: float
    compute: float
    parts: int
    cards: Sequence[int] = ()


@dataclass
class _Machine:
    """What is free of each card, and the stages that run."""

    free: list[int]
    light: int = LIGHT_STAGES
    running: dict[str, _Work] = field(default_factory=dict)

    def started(self, stage: Stage, work: _Work) -> bool:
        """Start a stage if there is room for it; as the slots do, where most is free."""
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
        """Let time pass until a stage ends; return how long that was, and which."""
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
