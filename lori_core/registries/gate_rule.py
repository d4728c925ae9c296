"""The registry of the gate's rules, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lori_core.registries.registry import Named, Registry, current_extension

if TYPE_CHECKING:
    from lori_core.evaluation.gate_rules import Measured, RuleInput


Measure = Callable[["RuleInput"], "Measured | float | None"]


@dataclass(frozen=True)
class GateRule(Named):
    """A measurement that the gate can bound.

    Attributes:
        measure: returns the value for a candidate.
        least: the smallest possible value.
        most: the largest possible value.
        per_task: whether there is one rule for each task, `<name>.<task>`.
        needs: the required measurements: `refusals` (verdicts on a task of requests to refuse or
            to answer), `before` (the scores of the adapter trained on safety alone), `fact` (a
            number of the rule's name that is measured elsewhere).
    """

    measure: Measure
    least: float
    most: float
    per_task: bool
    needs: tuple[str, ...]


GATE_RULES: Registry[GateRule] = Registry("rule", "lori_core.evaluation.gate_rules")

#: The rules that have to hold in each set-up of `gate.setups`.
RULES_OF_SETUPS = ("refusal", "over_refusal")


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
    """Register a function that measures a value which the gate can bound.

    Its argument is a `gate_rules.RuleInput`. It returns a number; a `gate_rules.Measured`, which
    also holds the verdicts behind the number; or None if there is nothing to measure, which fails
    the rule.

    Args:
        name: the name in `gate.rules`.
        label: the name in tables.
        about: a description of one sentence.
        least: the smallest possible value.
        most: the largest possible value.
        per_task: whether to measure each task by itself, as `<name>.<task>`.
        needs: see `GateRule`.
    """

    def register(function: Measure) -> Measure:
        bounds = (least, most, per_task, tuple(needs))
        GATE_RULES.add(GateRule(name, label, about, current_extension(), function, *bounds))
        return function

    return register
