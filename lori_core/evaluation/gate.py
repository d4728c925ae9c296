"""The gate: whether a model may be served, by the rules of `params.yaml`, on the same items.

A task's rule asks for more than no proof of harm: it is a test of non-inferiority. With δ the mean
difference over the items, candidate less champion, the rule holds where δ's lower limit of
one-sided confidence c (`bounded_mean.interval`) is at least -margin, so that a candidate that is
worse by the margin passes in at most 1 - c of all test sets. Too few items to tell is a refusal,
too. All rules have to hold: several tasks make the error no larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lori_core.config import GateSection
from lori_core.core.errors import ConfigError, unknown
from lori_core.core.escaping import cell, plain
from lori_core.evaluation import bounded_mean, gate_rules
from lori_core.evaluation.gate_rules import Measured, Scored
from lori_core.evaluation.paired_comparison import (
    Comparison,
    Rows,
    compare,
    counts,
    flipped,
    positive,
    read_verdicts,
    spoken,
)

#: Flipped examples a refusal shows.
EXAMPLES = 5
TEXT_LENGTH = 300


@dataclass(frozen=True)
class RuleResult:
    """One rule's outcome.

    Attributes:
        rule: its name, as in `not_worse.math` or `refusal`.
        passed: whether it holds.
        value: what was measured.
        limit: what is asked for.
        text: the rule and its numbers in a line.
        numbers: interval ends, p-value, items and the like.
        flipped: examples that were answered otherwise, those that got worse first.
    """

    rule: str
    passed: bool
    value: float | None
    limit: float
    text: str
    numbers: dict[str, float] = field(default_factory=dict)
    flipped: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class GateDecision:
    """What the gate says of a candidate.

    Attributes:
        passed: whether all rules hold.
        candidate: its name.
        champion: the name of what it was compared with; None for a first promotion.
        findings: rule by rule, in order.
    """

    passed: bool
    candidate: str
    champion: str | None
    findings: tuple[RuleResult, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it for the verdict's file."""
        return asdict(self)

    @property
    def refusals(self) -> list[RuleResult]:
        """The rules that do not hold."""
        return [finding for finding in self.findings if not finding.passed]


def judge(
    candidate: Scored, champion: Scored | None, before: Scored | None, section: GateSection
) -> GateDecision:
    """Apply the rules to a candidate.

    Args:
        candidate: what wants to be served.
        champion: what is served; None where nothing is: then only the rules about the candidate
            itself count.
        before: what the candidate's safety is compared with for the forgetting budget: the adapter
            trained on safety alone; None where there is none.
        section: the rules.

    Raises:
        ConfigError: a rule is about a metric that does not exist here.
        DataError: verdicts of another form.
    """
    _check(candidate, champion, before, section)
    findings = [*_not_worse(candidate, champion, section), *_bounds(candidate, before, section)]
    return GateDecision(
        passed=all(finding.passed for finding in findings),
        candidate=candidate.name,
        champion=champion.name if champion else None,
        findings=tuple(findings),
    )


def _check(
    candidate: Scored, champion: Scored | None, before: Scored | None, section: GateSection
) -> None:
    known = gate_rules.known(candidate, before)
    for name in section.rules:
        if name not in known:
            raise ConfigError(f"gate.rules: {unknown('metric', name, known)}")
    tasks = set(candidate.files)
    for name in section.margins:
        if name not in tasks:
            raise ConfigError(f"gate.margins: {unknown('task', name, tasks)}")


def _not_worse(
    candidate: Scored, champion: Scored | None, section: GateSection
) -> Iterator[RuleResult]:
    if champion is None:
        return
    for task, path in candidate.files.items():
        theirs = champion.files.get(task)
        margin = section.margins.get(task, section.margin)
        rule = f"not_worse.{task}"
        if theirs is None:
            text = f"{task}: the champion was not scored on it, so there is nothing to compare"
            yield RuleResult(rule, False, None, -margin, text)
            continue
        rows: Rows = "refuse" if candidate.safety() == path else "all"
        yield _paired(rule, task, path, theirs, rows, margin, section)


def _paired(
    rule: str, task: str, ours: Path, theirs: Path, rows: Rows, margin: float, section: GateSection
) -> RuleResult:
    """Test that a task's score did not fall by more than the margin."""
    # One side of an interval with confidence 2c - 1 has confidence c.
    found = compare(ours, theirs, rows, 2 * section.confidence - 1, shared=True)
    passed = found.n >= section.least_items and found.low >= -margin
    text = (
        f"{task}: {_points(found.difference)} to the champion on {found.n} items; with "
        f"{100 * section.confidence:g} % confidence not below {_floor(found.low)} points "
        f"(allowed {0 - 100 * margin:+g}; p {found.p:.3f})"
    )
    if found.left_out:
        text += f"; {found.left_out} of its items were not asked of the champion and are left out"
    if not passed:
        text = "; ".join([text, *_why_not(found, margin, section)])
    pairs = [] if passed else list(flipped(ours, theirs, rows))[:EXAMPLES]
    kept = ("low", "high", "p", "n", "lost", "gained")
    numbers = {name: float(getattr(found, name)) for name in kept}
    examples = [_example(*pair) for pair in pairs]
    return RuleResult(rule, passed, found.difference, -margin, text, numbers, examples)


def _why_not(found: Comparison, margin: float, section: GateSection) -> Iterator[str]:
    """Say why a task's rule does not hold: the items do not tell, or the candidate is worse."""
    if found.n < section.least_items:
        yield f"fewer than gate.least_items ({section.least_items}): too few to tell"
    if found.low >= -margin:
        return
    needed = bounded_mean.items_needed(margin, section.confidence)
    if found.high < -margin:
        yield "it is worse"
    elif needed is None:
        yield (
            "a margin of 0 passes only what is shown to be better: no number of items can show "
            "that nothing is lost"
        )
    elif found.n < needed:
        yield (
            f"{found.n} items cannot show that no more than {_share(margin)} points are lost at "
            f"{100 * section.confidence:g} %; at least {needed} are needed"
        )
    else:
        yield "it may be no worse, but these items cannot tell: more of them, or a wider margin"


def _bounds(candidate: Scored, before: Scored | None, section: GateSection) -> Iterator[RuleResult]:
    for name, bound in section.rules.items():
        found = gate_rules.measure(name, candidate, before, section.confidence)
        value, numbers = found.value, dict(found.numbers)
        for limit, floor in ((bound.at_least, True), (bound.at_most, False)):
            if limit is None:
                continue
            passed = value is not None and (value >= limit if floor else value <= limit)
            unit = "at least" if floor else "at most"
            shown = "not measured" if value is None else f"{value:.4g}{_ends(numbers)}"
            text = f"{name}: {shown}, {unit} {limit:g} is asked for"
            wrong = [] if passed else _wrong(found)
            yield RuleResult(name, passed, value, limit, text, numbers, wrong)


def _wrong(found: Measured) -> list[dict[str, str]]:
    """Return the examples that a refused rule is about: answered, refused or forgotten wrongly."""
    if found.source is None:
        return []
    if found.before is not None:
        pairs = list(flipped(found.source, found.before, "refuse"))[:EXAMPLES]
        return [_example(*pair, other="before") for pair in pairs]
    rows = [r for r in read_verdicts(found.source) if not r["correct"] and counts(r, found.about)]
    if found.about in ("comply", "incoherent"):
        rows = [row for row in rows if positive(row, found.about)]
    return [_shown(row) | {"candidate": _cut(row.get("output", ""))} for row in rows[:EXAMPLES]]


def _example(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], other: str = "champion"
) -> dict[str, str]:
    outputs = {other: theirs, "candidate": ours}
    texts = {name: _cut(row.get("output", "")) for name, row in outputs.items()}
    return _shown(ours) | texts | {"got": "better" if ours["correct"] else "worse"}


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "id": str(row["id"]),
        "prompt": _cut(spoken(str(row.get("prompt", "")))),
        "answer": _cut(row["answer"]),
    }


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _floor(share: float) -> str:
    """Return points to two places, rounded down: what is below the margin is shown below it."""
    return f"{math.floor(1e4 * share) / 100:+.2f}"


def _share(margin: float) -> str:
    """Return a margin in points, to one place or to as many as it has."""
    points = f"{100 * margin:g}"
    return points if "." in points or "e" in points else f"{points}.0"


def _ends(numbers: Mapping[str, float]) -> str:
    if "low" not in numbers:
        return ""
    return f" [{numbers['low']:.3f}, {numbers['high']:.3f}] of {numbers['n']:.0f}"


def as_markdown(verdict: GateDecision) -> str:
    """Return the verdict for people: the rules as a table, then the examples that flipped."""
    said = "may be served" if verdict.passed else "is refused"
    against = f"against {verdict.champion}" if verdict.champion else "the first: no champion yet"
    lines = [f"# {verdict.candidate} {said}", "", f"Judged {against}.", ""]
    lines += ["| rule | holds | numbers |", "| --- | --- | --- |"]
    lines += [
        f"| {cell(f.rule)} | {'yes' if f.passed else 'NO'} | {cell(f.text)} |"
        for f in verdict.findings
    ]
    for finding in verdict.refusals:
        for example in finding.flipped:
            lines += ["", f"## {finding.rule}: example {plain(example['id'])}", ""]
            lines += [f"- {name}: {plain(text)}" for name, text in example.items() if name != "id"]
    return "\n".join(lines) + "\n"
