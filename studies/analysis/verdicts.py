"""Judge claims: a claim's comparisons, and the rule that turns their intervals into a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from studies.analysis.paired import differences
from studies.analysis.paired.differences import Cell, Difference, Term
from studies.analysis.rows import Experiment, Wanted

ClaimVerdict = Literal["held", "did not hold", "could not be told"]
HELD: ClaimVerdict = "held"
FAILED: ClaimVerdict = "did not hold"
UNCLEAR: ClaimVerdict = "could not be told"
#: Levels of factors, by which rows are selected.
Condition = Mapping[str, Wanted]
#: The margin of non-inferiority: points of a share, or percent of a loss.
MARGIN = 2.0
#: The fewest seeds that tell a comparison of runs: the interval of one seed is over its items, and
#: does not say by how much the training of another seed differs.
LEAST_SEEDS = 2


@dataclass(frozen=True)
class Part:
    """One comparison of a claim.

    Attributes:
        label: what is compared.
        difference: the claim says that it is above `-margin`; None if it was not measured.
        margin: the margin of non-inferiority or equivalence; 0 for a comparison "is above".
        note: the text to show instead of the difference.
        equivalence: whether the claim also says that the difference is below `margin`.
        cells: the cells of the difference, as in `differences.contrast`.
        terms: its terms.
    """

    label: str
    difference: Difference | None
    margin: float = 0.0
    note: str = ""
    equivalence: bool = False
    cells: Sequence[Cell] = ()
    terms: Sequence[Term] = ()

    @property
    def verdict(self) -> ClaimVerdict:
        """The verdict of this comparison by itself."""
        return self.judged(1)

    def judged(self, comparisons: int) -> ClaimVerdict:
        """Return the verdict of one of several comparisons of a claim.

        Held if the whole interval is above `-margin` and, for equivalence, below `margin`: all
        comparisons must hold, so this needs no correction. Failed if the whole interval with
        Bonferroni's correction is outside, since one failed comparison is enough to refute.
        Unclear with fewer than `LEAST_SEEDS` seeds, unless it is no matter of chance (no terms).
        """
        difference = self.difference
        if difference is None or difference.low is None or difference.high is None:
            return UNCLEAR
        if self.terms and difference.seeds < LEAST_SEEDS:
            return UNCLEAR
        below = not self.equivalence or difference.high < self.margin
        if difference.low > -self.margin and below:
            return HELD
        low, high = difference.corrected(comparisons)
        over = self.equivalence and low is not None and low > self.margin
        return FAILED if over or (high is not None and high < -self.margin) else UNCLEAR

    def p(self, verdict: ClaimVerdict) -> float:
        """Return the two-sided p-value of the hypothesis that `verdict` rejects; 1 for none."""
        difference = self.difference
        if difference is None or verdict == UNCLEAR:
            return 1.0
        if verdict == HELD:
            above = difference.p_above(-self.margin)
            return max(above, difference.p_below(self.margin)) if self.equivalence else above
        below = difference.p_below(-self.margin)
        return min(below, difference.p_above(self.margin)) if self.equivalence else below

    @property
    def slack(self) -> float:
        """How far the interval's worst end is inside the margin; less than 0 is outside."""
        difference = self.difference
        if difference is None or difference.low is None or difference.high is None:
            return -math.inf
        slack = difference.low + self.margin
        return min(slack, self.margin - difference.high) if self.equivalence else slack

    @property
    def text(self) -> str:
        """The comparison with its numbers as one line."""
        return f"{self.label}: {self.note or differences.text(self.difference)}"

    @property
    def effect(self) -> str:
        """The size of the difference with its interval."""
        return differences.effect(self.difference)


def above(
    experiment: Experiment,
    cells: Sequence[Cell],
    first: Condition,
    second: Condition,
    label: str,
    margin: float = 0.0,
    *,
    equivalence: bool = False,
) -> Part:
    """Return the comparison "the first condition is above the second", as a mean over cells."""
    terms: list[Term] = [(1, first), (-1, second)]
    part = contrasted(experiment, cells, terms, label)
    difference = part.difference
    tasks = "" if difference is None else ", ".join(difference.tasks)
    mean = ", mean over " if difference is not None and len(difference.tasks) > 1 else ", "
    named = f"{label}{mean}{tasks}" if tasks else label
    return replace(part, label=named, margin=margin, equivalence=equivalence)


def contrasted(
    experiment: Experiment, cells: Sequence[Cell], terms: Sequence[Term], label: str
) -> Part:
    """Return the comparison "the sum of the terms is above 0", as a mean over cells."""
    difference = differences.contrast(experiment, cells, terms)
    return Part(label, difference, cells=cells, terms=terms)


#: Returns a claim's comparisons, in scores or in losses.
Compare = Callable[[Experiment, "Cells"], Sequence[Part]]


@dataclass(frozen=True)
class Cells:
    """The measure by which a claim is judged.

    Attributes:
        kind: the tasks' scores; for multiple choice, the accuracy by log-likelihood; or the tasks'
            held-out losses.
        of: returns a cell for each task of an experiment; for all tasks if given None.
    """

    kind: Literal["scores", "likelihood", "losses"]
    of: Callable[[Experiment, Sequence[str] | None], list[Cell]]


BY_SCORES = Cells("scores", differences.score_cells)
BY_LIKELIHOOD = Cells("likelihood", differences.likelihood_cells)
BY_LOSSES = Cells("losses", differences.loss_cells)
#: The measures that a claim on scores is judged by as well, where they were measured.
BESIDE_SCORES = (BY_LIKELIHOOD, BY_LOSSES)


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
        losses: whether it is about scores, and so also judged by log-likelihood and held-out
            losses.
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
    verdicts = {verdict for _, verdict in _each(parts)}
    if FAILED in verdicts:
        return FAILED
    return HELD if verdicts == {HELD} else UNCLEAR


def _each(parts: Sequence[Part]) -> list[tuple[Part, ClaimVerdict]]:
    measured = sum(part.difference is not None for part in parts)
    return [(part, part.judged(max(1, measured))) for part in parts]


def deciding(parts: Sequence[Part]) -> Part | None:
    """Return the comparison that decides: the failed one, else the one nearest to failing."""
    measured = [part for part in parts if part.difference is not None]
    return min(measured, key=lambda part: part.slack, default=None)


def judge(claim: Claim, experiment: Experiment) -> dict[str, Any]:
    """Judge a claim by an experiment's rows.

    Returns:
        `name`, `experiment`, `claim`, `source`, `rule`; `by`, the measure that decides; `verdict`,
        `because`, the text and verdict of each comparison, `deciding`, the text of the one that
        decides, `effect`, its difference with the interval, and `p`, the p-value of the verdict;
        `losses`, `losses_because`, `losses_deciding`, `losses_effect` and `losses_p`, the same by
        held-out losses, or None, [], "", "" and 1; `likelihood`, `likelihood_because` and so on,
        the same by the log-likelihood of choices, over the multiple-choice tasks alone.
    """
    parts = claim.compare(experiment, BY_SCORES)
    judged: dict[str, Any] = {
        "name": claim.name,
        "experiment": claim.experiment,
        "claim": claim.text,
        "source": claim.source,
        "rule": claim.rule,
        "by": "scores" if claim.losses else "measurement",
    }
    keys = ("verdict", "because", "deciding", "effect", "p")
    judged |= dict(zip(keys, _result(parts), strict=True))
    judged["because"] = judged["because"] or [{"text": "not measured", "verdict": UNCLEAR}]
    for measure in BESIDE_SCORES:
        names = (measure.kind, *(f"{measure.kind}_{key}" for key in keys[1:]))
        parts = claim.compare(experiment, measure) if claim.losses else []
        measured = any(part.difference is not None for part in parts)
        result = _result(parts) if measured else (None, [], "", "", 1.0)
        judged |= dict(zip(names, result, strict=True))
    return judged


def _result(
    parts: Sequence[Part],
) -> tuple[ClaimVerdict, list[dict[str, str]], str, str, float]:
    """Return the verdict, each comparison, the deciding one's text and effect, and the p-value."""
    verdict, part = all_of(parts), deciding(parts)
    because = [{"text": part.text, "verdict": own} for part, own in _each(parts)]
    shown = part or next((other for other in parts if other.note), None)
    effect = differences.effect(None) if shown is None else shown.note or shown.effect
    text = shown.text if shown else because[0]["text"] if because else effect
    count = sum(part.difference is not None for part in parts)
    values = [part.p(verdict) for part in parts if part.difference is not None]
    p = 1.0
    if verdict == HELD:
        p = max(values)
    elif verdict == FAILED:
        p = min(1.0, count * min(values))
    return verdict, because, text, effect, p
