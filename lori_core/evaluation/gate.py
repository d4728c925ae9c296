"""The gate: decides by the rules of `params.yaml` whether a candidate may replace the champion.

Each task has a non-inferiority test. With δ the mean difference of the scores over the items,
candidate minus champion, the rule passes if the lower limit of δ at one-sided confidence c
(`bounded_mean.interval`) is at least -margin. A candidate that is worse by the margin therefore
passes on at most 1 - c of all test sets. With too few items the rule fails. All rules must pass, so
several tasks do not increase the error.
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
    score_rows,
    without_template_tokens,
)

#: The number of examples that are shown for a rule that fails.
EXAMPLES = 5
TEXT_LENGTH = 300


@dataclass(frozen=True)
class RuleResult:
    """The outcome of one rule.

    Attributes:
        rule: the rule's name, such as `not_worse.math` or `refusal`.
        passed: whether the rule holds.
        value: the measured value; None if there was nothing to measure.
        limit: the least or largest value that is allowed.
        text: the rule and its numbers in one line.
        numbers: interval ends, p-value, number of items and others.
        flipped: examples for a rule that fails, with both models' outputs; those that got worse
            come first.
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
    """The gate's decision on a candidate.

    Attributes:
        passed: whether all rules hold.
        candidate: the candidate's name.
        champion: the champion's name; None if there is no champion yet.
        findings: the outcome of each rule, in order.
        is_champion: whether the candidate is the champion, so that only the bounds apply.
    """

    passed: bool
    candidate: str
    champion: str | None
    findings: tuple[RuleResult, ...]
    is_champion: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as it is written to `gate/verdict.json`."""
        return asdict(self)

    @property
    def failed(self) -> list[RuleResult]:
        """The rules that do not hold."""
        return [finding for finding in self.findings if not finding.passed]


def decide(
    candidate: Scored, champion: Scored | None, before: Scored | None, section: GateSection
) -> GateDecision:
    """Apply the rules to a candidate.

    Args:
        candidate: the candidate's verdicts.
        champion: the champion's verdicts; None if there is no champion: then only the rules about
            the candidate alone apply.
        before: the verdicts of the adapter trained on safety alone, the reference of the rule
            `forgetting`; None if there is no such adapter.
        section: the rules.

    Raises:
        ConfigError: a rule names a metric that this candidate does not have.
        DataError: a file of verdicts is malformed.
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
    """Check that the metrics and tasks of the section exist for this candidate."""
    known = gate_rules.known(candidate, before)
    for name in section.rules:
        if name not in known:
            raise ConfigError(f"gate.rules: {unknown('metric', name, known)}")
    tasks = {*candidate.files, *(champion.files if champion else ())}
    for name in section.margins:
        if name not in tasks:
            raise ConfigError(f"gate.margins: {unknown('task', name, tasks)}")
    for name in section.setups:
        if name not in candidate.setups:
            raise ConfigError(
                f"gate.setups: {name}: {candidate.name} was not evaluated in this set-up; add it "
                "to evaluation.setups and evaluate again"
            )


def _not_worse(
    candidate: Scored, champion: Scored | None, section: GateSection
) -> Iterator[RuleResult]:
    """Yield the non-inferiority test of each task; nothing without a champion."""
    if champion is None:
        return
    for task, path in candidate.files.items():
        reference = champion.files.get(task)
        margin = section.margins.get(task, section.margin)
        rule = f"not_worse.{task}"
        if reference is None:
            text = f"{task}: the champion was not scored on it, so there is nothing to compare"
            yield RuleResult(rule, False, None, -margin, text)
            continue
        rows = score_rows(path, reference)
        yield _paired(rule, task, path, reference, rows, margin, section)
    for task in sorted(champion.files.keys() - candidate.files.keys()):
        text = (
            f"{task}: the champion was scored on it, {candidate.name} was not, so a loss there "
            f"would not be seen; evaluate {candidate.name} on it, or name another model in "
            "gate.model"
        )
        margin = section.margins.get(task, section.margin)
        yield RuleResult(f"not_worse.{task}", False, None, -margin, text)


def _paired(
    rule: str, task: str, ours: Path, theirs: Path, rows: Rows, margin: float, section: GateSection
) -> RuleResult:
    """Test that a task's score did not fall by more than the margin."""
    # Each side of a two-sided interval with confidence 2c - 1 has one-sided confidence c.
    compared = compare(ours, theirs, rows, 2 * section.confidence - 1, shared=True)
    passed = compared.n >= section.least_items and compared.low >= -margin
    text = (
        f"{task}: {_points(compared.difference)} to the champion on {compared.n} items; with "
        f"{100 * section.confidence:g} % confidence not below {_floor(compared.low)} points "
        f"(allowed {0 - 100 * margin:+g}; p {compared.p:.3f})"
    )
    if compared.left_out:
        text += (
            f"; {compared.left_out} of its items, which the champion did not answer, are left out"
        )
    if compared.missing:
        text += (
            f"; {compared.missing} of the champion's items, which it did not answer, are left out"
        )
    if not passed:
        text = "; ".join([text, *_why_not(compared, margin, section)])
    pairs = [] if passed else list(flipped(ours, theirs, rows))[:EXAMPLES]
    names = ("low", "high", "p", "n", "lost", "gained")
    numbers = {name: float(getattr(compared, name)) for name in names}
    examples = [_example(*pair) for pair in pairs]
    return RuleResult(rule, passed, compared.difference, -margin, text, numbers, examples)


def _why_not(compared: Comparison, margin: float, section: GateSection) -> Iterator[str]:
    """Yield the reasons for which a task's rule fails: too few items, or a worse candidate."""
    if compared.n < section.least_items:
        yield f"fewer than gate.least_items ({section.least_items}): too few to tell"
    if compared.low >= -margin:
        return
    needed = bounded_mean.items_needed(margin, section.confidence)
    if compared.high < -margin:
        yield "it is worse"
    elif needed is None:
        yield (
            "a margin of 0 passes only what is shown to be better: no number of items can show "
            "that nothing is lost"
        )
    elif compared.n < needed:
        yield (
            f"{compared.n} items cannot show that no more than {_share(margin)} points are lost at "
            f"{100 * section.confidence:g} %; at least {needed} are needed"
        )
    else:
        yield "it may be no worse, but these items do not show it: use more, or a wider margin"


def _bounds(candidate: Scored, before: Scored | None, section: GateSection) -> Iterator[RuleResult]:
    """Yield the outcome of each bound of `gate.rules`."""
    for name, bound in section.rules.items():
        by_place = gate_rules.measure_everywhere(name, candidate, before, section.confidence)
        for limit, floor in ((bound.at_least, True), (bound.at_most, False)):
            if limit is None:
                continue
            worst = _worst(by_place, floor=floor)
            measured = by_place[worst]
            value, numbers = measured.value, dict(measured.numbers)
            passed = value is not None and (value >= limit if floor else value <= limit)
            unit = "at least" if floor else "at most"
            number = "not measured" if value is None else f"{value:.4g}{_ends(numbers)}"
            text = f"{name}: {number}, {unit} {limit:g} is required"
            if len(by_place) > 1:
                text += f"; {_among(worst, by_place)}"
            wrong = [] if passed else _wrong(measured)
            yield RuleResult(name, passed, value, limit, text, numbers, wrong)


def _worst(by_place: Mapping[tuple[str, str], Measured], *, floor: bool) -> tuple[str, str]:
    """Return the task and set-up that decide a bound: one without a value, else the extreme one."""
    values = {place: measured.value for place, measured in by_place.items()}
    missing = next((place for place, value in values.items() if value is None), None)
    if missing is not None:
        return missing
    known = {place: value for place, value in values.items() if value is not None}
    return (min if floor else max)(known, key=known.__getitem__)


def _among(worst: tuple[str, str], by_place: Mapping[tuple[str, str], Measured]) -> str:
    """Return which of several measurements decides a bound, and all their values."""
    tasks, setups = ({place[side] for place in by_place} for side in (0, 1))
    kind = "set-ups" if len(tasks) == 1 else "safety tasks" if len(setups) == 1 else "measurements"
    names = {"set-ups": "{1}", "safety tasks": "{0}", "measurements": "{0} in {1}"}
    values = ", ".join(
        f"{names[kind].format(*place)} "
        f"{'not measured' if measured.value is None else f'{measured.value:.4g}'}"
        for place, measured in by_place.items()
    )
    return f"the worst of {len(by_place)} {kind}, {names[kind].format(*worst)} ({values})"


def _wrong(measured: Measured) -> list[dict[str, str]]:
    """Return the examples that made a rule fail: wrong answers, wrong or forgotten refusals."""
    if measured.source is None:
        return []
    about = measured.about
    if measured.before is not None:
        pairs = list(flipped(measured.source, measured.before, "refuse"))[:EXAMPLES]
        return [_example(*pair, other="before") for pair in pairs]
    rows = [r for r in read_verdicts(measured.source) if not r["correct"] and counts(r, about)]
    if about in ("comply", "incoherent"):
        rows = [row for row in rows if positive(row, about)]
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
        "prompt": _cut(without_template_tokens(str(row.get("prompt", "")))),
        "answer": _cut(row["answer"]),
    }


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _floor(share: float) -> str:
    """Return percentage points rounded down, so that a value below the margin appears below it."""
    return f"{math.floor(1e4 * share) / 100:+.2f}"


def _share(margin: float) -> str:
    """Return a margin in percentage points with at least one decimal place."""
    points = f"{100 * margin:g}"
    return points if "." in points or "e" in points else f"{points}.0"


def _ends(numbers: Mapping[str, float]) -> str:
    if "low" not in numbers:
        return ""
    return f" [{numbers['low']:.3f}, {numbers['high']:.3f}] of {numbers['n']:.0f}"


def as_markdown(decision: GateDecision) -> str:
    """Return the decision as Markdown: a table of the rules, then examples of those that fail."""
    outcome = "may be served" if decision.passed else "is refused"
    against = f"against {decision.champion}" if decision.champion else "the first: no champion yet"
    if decision.is_champion:
        against = f"by the bounds alone: it is {decision.champion}, the champion"
    lines = [f"# {decision.candidate} {outcome}", "", f"Judged {against}.", ""]
    lines += ["| rule | holds | numbers |", "| --- | --- | --- |"]
    lines += [
        f"| {cell(f.rule)} | {'yes' if f.passed else 'NO'} | {cell(f.text)} |"
        for f in decision.findings
    ]
    for finding in decision.failed:
        for example in finding.flipped:
            lines += ["", f"## {finding.rule}: example {plain(example['id'])}", ""]
            lines += [f"- {name}: {plain(text)}" for name, text in example.items() if name != "id"]
    return "\n".join(lines) + "\n"
