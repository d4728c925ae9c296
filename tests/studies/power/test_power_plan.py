"""Power plans: the planned power is the realised one, and each claim has a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from studies.analysis.claims import CLAIMS
from studies.analysis.paired import crossed
from studies.analysis.rows import Experiment
from studies.analysis.verdicts import BY_LOSSES, BY_SCORES
from studies.power import needs, plan
from studies.power.decisions import DECISION_OF
from studies.power.needs import Spread
from studies.power.plan import Settings

MANY = 800


def told(generator: Any, spread: Spread, distance: float, seeds: int, items: int) -> bool:
    """Return whether one simulated experiment tells a true difference from its threshold."""
    effects = np.sqrt(spread.seeds) * generator.normal(size=(seeds, 1))
    effects = effects + np.sqrt(spread.items) * generator.normal(size=items)
    table = effects + np.sqrt(spread.rest) * generator.normal(size=(seeds, items))
    found = crossed.mean([table])
    if spread.equivalence:
        return abs(found.value) + found.reach < distance
    return found.value + distance > found.reach


@pytest.mark.parametrize(
    "spread",
    [
        Spread(1, 400, 400),
        Spread(4, 100, 900),
        Spread(2, 0, 1600),
        Spread(0, 900, 400),
        Spread(1, 100, 400, equivalence=True),
    ],
    ids=["all", "seeds", "no-items", "no-seeds", "equivalence"],
)
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9])
def test_planned_power_is_the_realised_power(spread: Spread, wanted: float) -> None:
    distance = 2.0
    need = needs.cheapest([(spread, distance)], wanted, lambda s, i: s * (100 + i))
    assert need is not None
    assert need.power >= wanted
    generator = np.random.default_rng(5)
    realised = sum(told(generator, spread, distance, need.seeds, need.items) for _ in range(MANY))
    assert realised / MANY == pytest.approx(need.power, abs=0.05)


def test_two_comparisons_that_must_both_hold_have_the_product_of_their_powers() -> None:
    spread = Spread(1, 400, 400)
    need = needs.cheapest([(spread, 2), (spread, 2)], 0.8, lambda s, i: s * (100 + i))
    assert need is not None
    single = needs.power(spread, 2, need.seeds, need.items)
    assert need.power == pytest.approx(single**2)
    generator = np.random.default_rng(6)
    both = [
        told(generator, spread, 2, need.seeds, need.items)
        & told(generator, spread, 2, need.seeds, need.items)
        for _ in range(MANY)
    ]
    assert sum(both) / MANY == pytest.approx(need.power, abs=0.05)


def test_power_grows_with_seeds_items_and_distance() -> None:
    spread = Spread(1, 400, 400)
    assert needs.power(spread, 2, 3, 100) < needs.power(spread, 2, 6, 100)
    assert needs.power(spread, 2, 3, 100) < needs.power(spread, 2, 3, 1000)
    assert needs.power(spread, 2, 3, 100) < needs.power(spread, 4, 3, 100)
    assert needs.power(Spread(0, 0, 0), 2, 3, 100) == 1
    assert 0.01 < needs.power(spread, 0, 3, 100) < 0.03


def test_without_a_plan_that_reaches_the_power_there_is_none() -> None:
    assert needs.cheapest([(Spread(1e6, 0, 0), 2)], 0.8, lambda s, i: s) is None


def test_items_do_not_matter_where_only_seeds_differ() -> None:
    need = needs.cheapest([(Spread(1, 0, 0), 2)], 0.8, lambda s, i: s * i)
    assert need is not None
    assert need.items == 0


def test_every_claim_has_a_decision_and_a_plan_or_a_reason(exact: dict[str, Experiment]) -> None:
    assert sorted(DECISION_OF) == sorted(claim.name for claim in CLAIMS)
    planned = plan.plan(exact, Settings())
    measures = {(line.name, line.measure) for line in planned}
    assert measures == {
        (claim.name, kind.kind)
        for claim in CLAIMS
        for kind in ((BY_SCORES, BY_LOSSES) if claim.losses else (BY_SCORES,))
    }
    ranks = [line.rank for line in planned]
    assert ranks == sorted(ranks)
    for line in planned:
        assert (line.seeds is None) == bool(line.note), line
    assert {line.note for line in planned if line.note} == {"needs no more: not a matter of chance"}


def test_an_experiment_that_was_not_run_has_no_pilot(exact: dict[str, Experiment]) -> None:
    (line, by_loss) = plan.plan({}, Settings(), names=["granularity"])
    assert line.note == by_loss.note == "no pilot: run it with two seeds or more"
    single = exact["granularity"]
    rows = tuple(row for row in single.rows if row.seed == 1)
    one_seed = {"granularity": replace(single, rows=rows)}
    assert plan.plan(one_seed, Settings(), names=["granularity"])[0].note == line.note


class Dear:
    """Forecasts of a fixed cost: an hour for each seed."""

    def of(self, experiment: str, parts: Any) -> Any:
        return self

    def seconds(self, seeds: int, items: int) -> float:
        return 3600.0 * seeds


def test_a_budget_puts_claims_out_of_reach(exact: dict[str, Experiment]) -> None:
    costs: Any = Dear()
    line, _ = plan.plan(exact, Settings(budget=100), costs, ["granularity"])
    assert (line.within_budget, line.hours) == (True, line.seeds)
    over, _ = plan.plan(exact, Settings(budget=1), costs, ["granularity"])
    assert (over.within_budget, over.note) == (False, "over the budget")
    settings = Settings(budget=1)
    text = list(plan.show([over], settings, "metrics", "H100"))
    assert text[0] == (
        "80 % power to tell a difference of 2 points or 2 % of a loss, from metrics; hours on one "
        "H100, at most 1 h a claim"
    )
    assert text[1] == "Decides settings of the mask and of the merge:"
    assert text[-1] == "Out of reach: 1 of 1"
    shown: Mapping[str, Any] = plan.as_json([over], settings, "metrics", "H100")
    assert shown["budget"] == 1
    assert shown["claims"][0]["name"] == "coarse_beats_fine"
