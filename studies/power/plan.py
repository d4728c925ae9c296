"""Plan the power of claims: what each needs, what that costs, and which are out of reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from studies.analysis.claims import CLAIMS
from studies.analysis.rows import Experiment
from studies.analysis.verdicts import BESIDE_SCORES, BY_LIKELIHOOD, BY_SCORES, MARGIN, Claim, Part
from studies.power import needs
from studies.power.costs import Cost, Costs
from studies.power.decisions import DECISION_OF

HOUR = 3600.0
#: The labels of the measures by which a claim is judged.
LABELS = {"scores": "scores", "likelihood": "log-likelihood", "losses": "held-out loss"}


@dataclass(frozen=True)
class Settings:
    """The settings of a power plan.

    Attributes:
        margin: the true difference that must be told, points of a share or percent of a loss; a
            claim with a margin of its own has that instead.
        power: the probability with which it must be told.
        budget: the hours on one device for each claim; None for no limit.
    """

    margin: float = MARGIN
    power: float = 0.8
    budget: float | None = None


@dataclass(frozen=True)
class Planned:
    """What a claim needs by one measure.

    Attributes:
        rank: its place by what users decide with it, from 1.
        claim: the claim.
        name: its short name.
        decides: what users decide with it.
        experiment: its experiment.
        measure: `scores` or `losses`.
        seeds: the number of seeds; None if there is no plan.
        items: the test items or held-out examples of each task; 0 if they do not matter.
        power: the planned power.
        hours: the forecast hours on one device; None without a forecast.
        lower_bound: whether the pilot has no outcomes of items, so that the variance between items
            is not in the plan.
        within_budget: whether the plan exists and its hours are within the budget.
        note: why there is no plan; else empty.
    """

    rank: int
    claim: str
    name: str
    decides: str
    experiment: str
    measure: str
    seeds: int | None = None
    items: int | None = None
    power: float | None = None
    hours: float | None = None
    lower_bound: bool = False
    within_budget: bool = False
    note: str = ""


def plan(
    experiments: Mapping[str, Experiment],
    settings: Settings,
    costs: Costs | None = None,
    names: Sequence[str] = (),
) -> list[Planned]:
    """Return what each claim needs, ranked by what users decide with it.

    Args:
        experiments: the pilot, by name.
        settings: margin, power and budget.
        costs: the forecasts; without them, the cheapest plan has the fewest runs times items.
        names: the experiments whose claims are planned; all if empty.
    """
    by_name = {claim.name: claim for claim in CLAIMS}
    planned = []
    for rank, name in enumerate(DECISION_OF, start=1):
        claim = by_name[name]
        if names and claim.experiment not in names:
            continue
        for measure in (BY_SCORES, *BESIDE_SCORES) if claim.losses else (BY_SCORES,):
            experiment = experiments.get(claim.experiment)
            parts = [] if experiment is None else list(claim.compare(experiment, measure))
            if measure is BY_LIKELIHOOD and all(part.difference is None for part in parts):
                continue
            base = Planned(
                rank, claim.text, name, DECISION_OF[name], claim.experiment, measure.kind
            )
            planned.append(_planned(base, claim, experiment, parts, settings, costs))
    return planned


def _planned(
    base: Planned,
    claim: Claim,
    experiment: Experiment | None,
    parts: Sequence[Part],
    settings: Settings,
    costs: Costs | None,
) -> Planned:
    facts = asdict(base)
    if parts and all(part.note and not part.terms for part in parts):
        return Planned(**facts | {"note": "needs no more: not a matter of chance"})
    found = [] if experiment is None else [needs.spread(experiment, part) for part in parts]
    known = [spread for spread in found if spread is not None]
    if not found or len(known) < len(found):
        return Planned(**facts | {"note": "no pilot: run it with two seeds or more"})
    distances = [part.margin or settings.margin for part in parts]
    cost = Cost(0, 1, 1) if costs is None else costs.of(claim.experiment, parts)
    comparisons = list(zip(known, distances, strict=True))
    need = needs.cheapest(comparisons, settings.power, cost.seconds)
    facts["lower_bound"] = not all(spread.paired for spread in known)
    if need is None:
        most = f"{needs.SEEDS[-1]} seeds and {needs.ITEMS[-1]:,} items"
        return Planned(**facts | {"note": f"out of reach with {most}"})
    hours = None if costs is None else need.cost / HOUR
    over = settings.budget is not None and hours is not None and hours > settings.budget
    facts |= {"seeds": need.seeds, "items": need.items, "power": need.power, "hours": hours}
    return Planned(**facts | {"within_budget": not over, "note": "over the budget" if over else ""})


def show(planned: Sequence[Planned], settings: Settings, where: str, device: str) -> Iterator[str]:
    """Yield the lines of a plan.

    Args:
        planned: the result of `plan`.
        settings: margin, power and budget.
        where: the folder of the pilot.
        device: the device of the forecasts.
    """
    budget = "" if settings.budget is None else f", at most {settings.budget:g} h a claim"
    yield (
        f"{100 * settings.power:.0f} % power to tell a difference of {settings.margin:g} points or "
        f"{settings.margin:g} % of a loss, from {where}; hours on one {device}{budget}"
    )
    decision = ""
    for line in planned:
        if line.decides != decision:
            decision = line.decides
            yield f"Decides {decision}:"
        yield f"  {_need(line):52} {LABELS[line.measure]:14} {line.claim}"
    if any(line.lower_bound for line in planned):
        yield (
            "* a lower bound: these rows have no outcomes of items, so the variance between items "
            "is unknown"
        )
    out = sum(not line.within_budget for line in planned if line.seeds or line.note[:3] == "out")
    yield f"Out of reach: {out} of {len(planned)}"


def _need(line: Planned) -> str:
    if line.seeds is None:
        return line.note
    items = f" x {line.items:,} items" if line.items else ""
    hours = "" if line.hours is None else f", {line.hours:.2g} h"
    over = f" ({line.note})" if line.note else ""
    return f"{line.seeds} seeds{items}{hours}{'*' if line.lower_bound else ''}{over}"


def as_json(planned: Sequence[Planned], settings: Settings, where: str, device: str) -> Any:
    """Return a plan as a JSON value: the settings, and `claims` with the fields of `Planned`."""
    facts = {**asdict(settings), "record": where, "device": device}
    return facts | {"claims": [asdict(line) for line in planned]}
