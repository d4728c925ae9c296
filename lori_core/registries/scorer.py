"""Scorers: the registry, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lori_core.core.errors import unknown
from lori_core.registries.registry import Named, Registry, running

if TYPE_CHECKING:
    from lori_core.data.example import Example
    from lori_core.evaluation.sandbox.sandbox import Program
    from lori_core.evaluation.scoring.scorers import Verdict


Score = Callable[["Example", str], "Verdict | Program"]
Expected = Callable[["Example", str], str]
_Score = TypeVar("_Score", bound=Score)


@dataclass(frozen=True)
class Scorer(Named):
    """How outputs are judged.

    Attributes:
        score: an example and an output -> the verdict, or the program whose outcome it is.
        metric: what the share of correct outputs is called in metrics.
        meaning: what a score says, for people.
        expected: an example and its place -> what an output's answer must be; it raises
            `DataError` for a gold answer that no output could be judged by. None: the example's
            own, which must not be empty.
        max_new_tokens: the most tokens to write, unless `evaluation.max_new_tokens` says otherwise.
    """

    score: Score
    metric: str
    meaning: str
    expected: Expected | None
    max_new_tokens: int


SCORERS: Registry[Scorer] = Registry("scorer", "lori_core.evaluation.scoring.scorers")
#: Instead of a scorer: the examples are trained on and never judged.
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

    Its arguments are the `Example` and the output's text. It returns an
    `evaluation.scorers.Verdict`, or the program to run that has it.

    Args:
        name: for the field `scorer` of examples and sources.
        label: what tables call its score.
        about: one sentence: what it compares with the answer.
        metric: what the share of correct outputs is called in metrics, as `accuracy`.
        meaning: what a score says, as "share of correct answers"; the label unless given.
        expected: what an output's answer must be; by default the example's own, which must not be
            empty.
        max_new_tokens: the most tokens to write for an example.
    """
    if name == UNSCORED:
        raise ValueError(f"scorer {name!r}: is what examples without a scorer have; choose another")

    def register(function: _Score) -> _Score:
        facts = (metric, meaning or label, expected, max_new_tokens)
        SCORERS.add(Scorer(name, label, about, running(), function, *facts))
        return function

    return register


def scorer_names() -> list[str]:
    """Return what the field `scorer` may say."""
    return [*SCORERS, UNSCORED]


def check_scorer(name: str) -> str:
    """Return what the field `scorer` may say.

    Raises:
        ValueError: it is none of them.
    """
    if name not in scorer_names():
        raise ValueError(unknown(SCORERS.kind, name, scorer_names()))
    return name
