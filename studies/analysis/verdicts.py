"""Judge claims: a claim's comparisons, and the rule that turns their intervals into a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from studies.analysis import differences
from studies.analysis.differences import Cell, Difference
from studies.analysis.rows import Experiment, Wanted

ClaimVerdict = Literal["held", "did not hold", "could not be told"]
HELD: ClaimVerdict = "held"
FAILED: ClaimVerdict = "did not hold"
UNCLEAR: ClaimVerdict = "could not be told"
#: Levels of factors, by which rows are selected.
Condition = Mapping[str, Wanted]
#: The margin of non-inferiority: points of a share, or percent of a loss.
MARGIN = 2.0


@dataclass(frozen=True)
class Part:
    """One comparison of a claim.

    Attributes:
        label: what is compared.
        difference: the claim says that it is above `-margin`; None if it was not measured.
        margin: the margin of non-inferiority; 0 for a comparison "is above".
        note: the text to show instead of the difference.
    """

    label: str
    difference: Difference | None
    margin: float = 0.0
    note: str = ""

    @property
    def verdict(self) -> ClaimVerdict:
        """Held if the whole interval is above `-margin`, failed if all of it is below."""
        difference = self.difference
        if difference is None or difference.low is None or difference.high is None:
            return UNCLEAR
        if difference.low > -self.margin:
            return HELD
        return FAILED if difference.high < -self.margin else UNCLEAR

    @property
    def text(self) -> str:
        """The comparison with its numbers as one line."""
        return f"{self.label}: {self.note or differences.text(self.difference)}"


def above(
    experiment: Experiment,
    cells: Sequence[Cell],
    first: Condition,
    second: Condition,
    label: str,
    margin: float = 0.0,
) -> Part:
    """Return the comparison "the first condition is above the second", as a mean over cells."""
    difference = differences.contrast(experiment, cells, [(1, first), (-1, second)])
    tasks = "" if difference is None else ", ".join(difference.tasks)
    mean = ", mean over " if difference is not None and len(difference.tasks) > 1 else ", "
    return Part(f"{label}{mean}{tasks}" if tasks else label, difference, margin)


#: Returns a claim's comparisons, in scores or in losses.
Compare = Callable[[Experiment, "Cells"], Sequence[Part]]


@dataclass(frozen=True)
class Cells:
    """The measure by which a claim is judged: the tasks' scores, or their held-out losses.

    Attributes:
        kind: which of the two.
        of: returns a cell for each task of an experiment; for all tasks if given None.
    """

    kind: Literal["scores", "losses"]
    of: Callable[[Experiment, Sequence[str] | None], list[Cell]]


BY_SCORES = Cells("scores", differences.score_cells)
BY_LOSSES = Cells("losses", differences.loss_cells)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or of this project.

    Attributes:
        name: a short name, for tracking.
        experiment: the experiment by which it is judged.
        text: the claim.
        source: the claim's place in the paper; "not in the paper" if it is ours.
        rule: the rule in words.
        compare: returns the comparisons.
        losses: whether it is also judged by held-out losses.
    """

    name: str
    experiment: str
    text: str
    source: str
    rule: str
    compare: Compare
    losses: bool = True


def all_of(parts: Sequence[Part]) -> ClaimVerdict:
    """Return held if every comparison held, failed if one failed, else unclear."""
    verdicts = {part.verdict for part in parts}
    if FAILED in verdicts:
        return FAILED
    return HELD if verdicts == {HELD} else UNCLEAR


def judge(claim: Claim, experiment: Experiment) -> dict[str, Any]:
    """Judge a claim by an experiment's rows.

    Returns:
        `name`, `experiment`, `claim`, `source`, `rule`; `by`, the measure that decides; `verdict`
        and `because`, the text and verdict of each comparison; `losses` and `losses_because`, the
        same by held-out losses, or None and [].
    """
    parts = claim.compare(experiment, BY_SCORES)
    judged: dict[str, Any] = {
        "name": claim.name,
        "experiment": claim.experiment,
        "claim": claim.text,
        "source": claim.source,
        "rule": claim.rule,
        "by": "scores" if claim.losses else "measurement",
        "verdict": all_of(parts),
        "because": _because(parts) or [{"text": "not measured", "verdict": UNCLEAR}],
        "losses": None,
        "losses_because": [],
    }
    if claim.losses:
        by_loss = claim.compare(experiment, BY_LOSSES)
        if any(part.difference is not None for part in by_loss):
            judged |= {"losses": all_of(by_loss), "losses_because": _because(by_loss)}
    return judged


def _because(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [{"text": part.text, "verdict": part.verdict} for part in parts]
