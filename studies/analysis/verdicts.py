"""What a verdict is: a claim, the comparisons it comes down to, and the rule that decides."""

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
#: Levels of factors that rows are selected by.
Condition = Mapping[str, Wanted]
#: "As good as" allows this much: points of a share, or percent of a loss.
MARGIN = 2.0


@dataclass(frozen=True)
class Part:
    """One comparison of a claim.

    Attributes:
        label: what is compared.
        found: more than `-margin` is what the claim says; None where it was not measured.
        margin: how far below nothing it may be.
        note: stands instead of the difference where it is no difference.
    """

    label: str
    found: Difference | None
    margin: float = 0.0
    note: str = ""

    @property
    def verdict(self) -> ClaimVerdict:
        """Held: the whole interval is above `-margin`; did not hold: it is all below."""
        if self.found is None or self.found.low is None or self.found.high is None:
            return UNCLEAR
        if self.found.low > -self.margin:
            return HELD
        return FAILED if self.found.high < -self.margin else UNCLEAR

    @property
    def text(self) -> str:
        """The comparison with its numbers, in a line."""
        return f"{self.label}: {self.note or differences.text(self.found)}"


def above(
    experiment: Experiment,
    cells: Sequence[Cell],
    first: Condition,
    second: Condition,
    label: str,
    margin: float = 0.0,
) -> Part:
    """Return the comparison "the first condition is above the second", as a mean over cells."""
    found = differences.contrast(experiment, cells, [(1, first), (-1, second)])
    tasks = "" if found is None else ", ".join(found.tasks)
    mean = ", mean over " if found is not None and len(found.tasks) > 1 else ", "
    return Part(f"{label}{mean}{tasks}" if tasks else label, found, margin)


#: The cells to compare in (scores, or losses) -> the comparisons.
Compare = Callable[[Experiment, "Cells"], Sequence[Part]]


@dataclass(frozen=True)
class Cells:
    """Where a claim is judged: in the tasks' scores, or in their held-out losses.

    Attributes:
        kind: which of the two.
        of: experiment, tasks or None for all -> a cell for each task.
    """

    kind: Literal["scores", "losses"]
    of: Callable[[Experiment, Sequence[str] | None], list[Cell]]


BY_SCORES = Cells("scores", differences.score_cells)
BY_LOSSES = Cells("losses", differences.loss_cells)


@dataclass(frozen=True)
class Claim:
    """Something the paper says, or that this project asks.

    Attributes:
        name: short, for tracking.
        experiment: that it is judged by.
        text: the claim.
        source: where the paper makes it; "not in the paper" where it is ours.
        rule: when it holds, in words.
        compare: the comparisons.
        losses: whether held-out losses can speak to it too.
    """

    name: str
    experiment: str
    text: str
    source: str
    rule: str
    compare: Compare
    losses: bool = True


def all_of(parts: Sequence[Part]) -> ClaimVerdict:
    """Return held where every comparison does, did not hold where one did not."""
    found = {part.verdict for part in parts}
    if FAILED in found:
        return FAILED
    return HELD if found == {HELD} else UNCLEAR


def judge(claim: Claim, experiment: Experiment) -> dict[str, Any]:
    """Return what the rows say of a claim.

    Returns:
        `name`, `experiment`, `claim`, `source`, `rule`; `by`, what decides; `verdict` and
        `because`, the text and verdict of each comparison; `losses` and `losses_because`, the same
        judged by held-out losses, else None and [].
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
        if any(part.found is not None for part in by_loss):
            judged |= {"losses": all_of(by_loss), "losses_because": _because(by_loss)}
    return judged


def _because(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [{"text": part.text, "verdict": part.verdict} for part in parts]
