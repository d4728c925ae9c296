"""Rules of the gate: the registry, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lori_core.registries.registry import Named, Registry, running

if TYPE_CHECKING:
    from lori_core.evaluation.gate_rules import Measured, RuleInput


Measure = Callable[["RuleInput"], "Measured | float | None"]


@dataclass(frozen=True)
class GateRule(Named):
    """What a bound of the gate may be about.

    Attributes:
        measure: what is judged -> its value.
        least: the least that the value can be.
        most: the most that it can be.
        per_task: there is one rule for each task, `<name>.<task>`.
        needs: what must have been measured: `refusals` (verdicts on a task of requests to refuse or
            to answer), `before` (the adapter trained on safety alone), `fact` (the number of this
            name that is measured elsewhere).
    """

    measure: Measure
    least: float
    most: float
    per_task: bool
    needs: tuple[str, ...]


GATE_RULES: Registry[GateRule] = Registry("rule", "lori_core.evaluation.gate_rules")


def gate_rule(
    name: str,
    label: str,
    about: str,
    *,
    least: float,
    most: float,
    per_task: bool = False,
    needs: Sequence[Literal["refusals", "before", "fact"]] = (),
) -> Callable[[Measure], Measure]:
    """Register a function that measures what a bound of the gate is about.

    Its argument is a `gate_rules.RuleInput`. It returns a number, a `gate_rules.Measured` that also
    says from which verdicts it was counted, or None where there is nothing to measure, which
    breaks the rule.

    Args:
        name: for `gate.rules`.
        label: what tables call it.
        about: one sentence.
        least: the least that the number can be.
        most: the most.
        per_task: measure each task by itself, as `<name>.<task>`.
        needs: see `GateRule`.
    """

    def register(function: Measure) -> Measure:
        bounds = (least, most, per_task, tuple(needs))
        GATE_RULES.add(GateRule(name, label, about, running(), function, *bounds))
        return function

    return register
