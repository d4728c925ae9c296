"""The registry of scorers, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lori_core.core.errors import unknown
from lori_core.registries.registry import Named, Registry, current_extension

if TYPE_CHECKING:
    from lori_core.data.example import Example
    from lori_core.evaluation.sandbox.sandbox import Program
    from lori_core.evaluation.scoring.scorers import Verdict


Score = Callable[["Example", str], "Verdict | Program"]
Expected = Callable[["Example", str], str]
_Score = TypeVar("_Score", bound=Score)


@dataclass(frozen=True)
class Scorer(Named):
    """A function that judges outputs, and its settings.

    Attributes:
        score: returns the verdict of an example's output, or a program whose outcome decides it.
        metric: the name of the share of correct outputs in metrics.
        meaning: the meaning of a score, for display.
        expected: returns the expected answer from an example and its location; raises `DataError`
            for an invalid gold answer. None uses the example's answer, which must not be empty.
        max_new_tokens: the most tokens to generate; `evaluation.max_new_tokens` overrides it.
    """

    score: Score
    metric: str
    meaning: str
    expected: Expected | None
    max_new_tokens: int


SCORERS: Registry[Scorer] = Registry("scorer", "lori_core.evaluation.scoring.scorers")
#: In the place of a scorer's name: the examples are only trained on, never scored.
UNSCORED = "none"


def scorer(
    name: str,
    label: str,
    about: str,
    *,
    metric: str,
    meaning: str = "",
    expected: Expected | None = None,
    max_new_tokens: int = 64,
) -> Callable[[_Score], _Score]:
    """Register a function that judges one output.

    Its arguments are the `Example` and the output's text. It returns a
    `evaluation.scoring.scorers.Verdict`, or a program whose outcome decides the verdict.

    Args:
        name: the name in the field `scorer` of examples and sources.
        label: the name of its score in tables.
        about: a description of one sentence: what it compares with the answer.
        metric: the name of the share of correct outputs in metrics, as `accuracy`.
        meaning: the meaning of a score, as "share of correct answers"; by default the label.
        expected: returns the expected answer; by default the example's, which must not be empty.
        max_new_tokens: the most tokens to generate for an example.

    Raises:
        ValueError: the name is `none`.
    """
    if name == UNSCORED:
        raise ValueError(f"scorer {name!r}: is what examples without a scorer have; choose another")

    def register(function: _Score) -> _Score:
        facts = (metric, meaning or label, expected, max_new_tokens)
        SCORERS.add(Scorer(name, label, about, current_extension(), function, *facts))
        return function

    return register


def scorer_names() -> list[str]:
    """Return the allowed values of the field `scorer`."""
    return [*SCORERS, UNSCORED]


def check_scorer(name: str) -> str:
    """Return a value of the field `scorer` if it is allowed.

    Raises:
        ValueError: the value is neither a scorer's name nor `none`.
    """
    if name not in scorer_names():
        raise ValueError(unknown(SCORERS.kind, name, scorer_names()))
    return name
