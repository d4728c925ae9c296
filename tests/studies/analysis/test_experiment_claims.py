"""Each claim's verdict where everything is known, where it is the other way, and where not run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from studies.analysis import claims, verdicts
from studies.analysis.paired.differences import Difference
from studies.analysis.rows import Experiment, Row
from studies.analysis.verdicts import FAILED, HELD, UNCLEAR, Part

#: In the made-up truths FFT beats LoRI, code too, weights do best at 0.4, and structure costs.
FALSE = {"beats_all", "code", "weight_balanced", "structured_as_good"}
#: There a frozen A costs at one rank, one A for all interferes, and random masks cost.
FALSE |= {"frozen_a_same_rank", "overlap_costs_nothing"}
FALSE |= {"random_as_magnitude", "random_mask_costs_nothing"}
#: True whichever way scores point: a count, margins that allow for being better, equivalence.
ALWAYS = {"fewer_parameters", "within_bound", "d_as_lora", "s_near_lora", "merged_near_single"}
ALWAYS |= {"frozen_a_equal_values", "lori_d_as_lora_fa", "null_space_learns"}
#: Mirrored, LoRI-S beats FFT on code and LoRI-D is as LoRA to within a point: no longer false.
MIRRORED = {"code": UNCLEAR, "weight_balanced": UNCLEAR, "structured_as_good": HELD}
MIRRORED |= {"frozen_a_same_rank": HELD, "random_mask_costs_nothing": HELD}


def mirrored(experiment: Experiment) -> Experiment:
    """Return an experiment whose better conditions are its worse ones."""
    return replace(experiment, rows=tuple(_mirror(row) for row in experiment.rows))


def _mirror(row: Row) -> Row:
    value, low, high = row.value, row.low, row.high
    if value is None or row.metric in ("max_abs_cosine", "bound"):
        return row
    if row.metric in ("loss", "mean_abs_cosine"):
        return replace(row, value=1 / value, low=None, high=None)
    if value > 1 or row.metric.startswith("trainable") or row.metric == "learning_rate":
        return row
    ends = {} if low is None or high is None else {"low": 1 - high, "high": 1 - low}
    return replace(row, value=1 - value, **ends)


def by_name(experiments: Mapping[str, Experiment]) -> dict[str, dict[str, Any]]:
    return {claim["name"]: claim for claim in claims.judged(experiments)}


def test_every_claim_is_told_where_nothing_is_left_to_chance(exact: dict[str, Experiment]) -> None:
    found = by_name(exact)
    assert list(found) == [claim.name for claim in claims.CLAIMS]
    assert {name: claim["verdict"] for name, claim in found.items()} == {
        name: FAILED if name in FALSE else HELD for name in found
    }
    with_losses = {name: claim["losses"] for name, claim in found.items() if claim["losses"]}
    assert with_losses == {name: found[name]["verdict"] for name in with_losses}
    assert {claim.name for claim in claims.CLAIMS if claim.losses} == set(with_losses)


def test_every_claim_turns_with_what_it_is_judged_by(exact: dict[str, Experiment]) -> None:
    found = by_name({name: mirrored(experiment) for name, experiment in exact.items()})
    for name, claim in found.items():
        wanted = HELD if name in ALWAYS else MIRRORED.get(name, FAILED)
        assert claim["verdict"] == wanted, name


def test_what_was_not_run_cannot_be_told(exact: dict[str, Experiment]) -> None:
    single = exact["single-task"]
    rows = tuple(row for row in single.rows if row.factors["method"] not in ("full", "ia3"))
    found = by_name({"single-task": replace(single, rows=rows)})
    assert found["small_methods"]["verdict"] == UNCLEAR
    texts = [part["text"] for part in found["small_methods"]["because"]]
    assert texts[1] == "LoRI-S against IA3: not measured"
    assert found["d_as_lora"]["verdict"] == HELD


def test_one_seed_tells_nothing_but_what_is_no_matter_of_chance(
    exact: dict[str, Experiment],
) -> None:
    """Its intervals are over items alone: another seed may say the opposite."""
    one = {
        name: replace(experiment, rows=tuple(row for row in experiment.rows if row.seed == 1))
        for name, experiment in exact.items()
    }
    found = by_name(one)
    told = {name for name, claim in found.items() if claim["verdict"] != UNCLEAR}
    assert told == {"fewer_parameters", "within_bound"}
    assert {claim["losses"] for claim in found.values()} == {None, UNCLEAR}
    part = found["merged_code"]["because"][0]
    assert part["text"].startswith("Concat LoRI-D against Concat LoRA, code: +5.0 points [+")
    assert "1 seed" in part["text"]


def test_a_bound_above_1_says_nothing(exact: dict[str, Experiment]) -> None:
    cosines = exact["property-1"]
    rows = tuple(replace(r, value=7.0) if r.metric == "bound" else r for r in cosines.rows)
    assert by_name({"property-1": replace(cosines, rows=rows)})["within_bound"] == (
        by_name(exact)["within_bound"]
        | {
            "verdict": UNCLEAR,
            "effect": "54 of 54 measurements, 0 of them under a bound below 1",
            "deciding": "largest |cos| within its bound: 54 of 54 measurements, 0 of them under a "
            "bound below 1",
            "p": 1.0,
            "stands": None,
            "because": [
                {
                    "text": "largest |cos| within its bound: 54 of 54 measurements, 0 of them "
                    "under a bound below 1",
                    "verdict": UNCLEAR,
                }
            ],
        }
    )


def test_a_claim_on_scores_is_unclear_where_only_losses_were_measured(
    exact: dict[str, Experiment],
) -> None:
    single = exact["single-task"]
    rows = tuple(
        row for row in single.rows if row.metric == "loss" or row.metric == "trainable_parameters"
    )
    found = by_name({"single-task": replace(single, rows=rows)})["d_above_s"]
    assert (found["verdict"], found["losses"]) == (UNCLEAR, HELD)
    assert found["because"] == [{"text": "LoRI-D against LoRI-S: not measured", "verdict": UNCLEAR}]


def test_a_claim_says_by_what_it_was_judged(exact: dict[str, Experiment]) -> None:
    found = by_name(exact)
    assert found["fewer_parameters"]["because"] == [
        {"text": "LoRI-S against LoRA: 497,664 against 9,768,960, 94.9 % fewer", "verdict": HELD}
    ]
    assert found["within_bound"]["because"][0]["text"] == (
        "largest |cos| within its bound: 54 of 54 measurements, 21 of them under a bound below 1"
    )
    assert found["merged_code"]["because"][0]["text"].startswith(
        "Concat LoRI-D against Concat LoRA, code: +5.0 points [+4."
    )
    assert found["fewer_parameters"]["by"] == "measurement"
    assert found["merged_code"]["by"] == "scores"


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.1, 5, 0, HELD),
        (-0.1, 5, 0, UNCLEAR),
        (-5, -0.1, 0, FAILED),
        (-1.9, 5, 2, HELD),
        (-2.1, 5, 2, UNCLEAR),
        (-5, -2.1, 2, FAILED),
        (None, None, 0, UNCLEAR),
    ],
)
def test_a_comparison_holds_where_its_whole_interval_does(
    low: float | None, high: float | None, margin: float, verdict: str
) -> None:
    assert Part("", Difference(1, low, high, 3, "points", ()), margin).verdict == verdict


def test_a_claim_of_several_comparisons_holds_where_all_do() -> None:
    held, unclear, failed = (
        Part("", Difference(1, low, 1, 3, "points", ()) if low is not None else None)
        for low in (0.5, None, 0.5)
    )
    failed = replace(failed, difference=Difference(-1, -1, -0.5, 3, "points", ()))
    assert verdicts.all_of([held, held]) == HELD
    assert verdicts.all_of([held, unclear]) == UNCLEAR
    assert verdicts.all_of([held, unclear, failed]) == FAILED
    assert verdicts.all_of([]) == UNCLEAR


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-1.9, 1.9, HELD),
        (-2.1, 1.9, UNCLEAR),
        (-1.9, 2.1, UNCLEAR),
        (2.1, 5, FAILED),
        (-5, -2.1, FAILED),
    ],
)
def test_equivalence_holds_where_the_interval_is_within_the_margin(
    low: float, high: float, verdict: str
) -> None:
    middle = Difference((low + high) / 2, low, high, 3, "points", ())
    part = Part("", middle, 2, equivalence=True)
    assert part.verdict == verdict
    assert (part.p(part.verdict) < 0.05) == (verdict != UNCLEAR)


def test_one_of_many_comparisons_refutes_only_with_correction() -> None:
    """Of ten true comparisons, one is often below by chance; all of ten above is rarely chance."""
    nearly = Part("", Difference(-1, -1.99, -0.01, 3, "points", ()))
    others = [Part("", Difference(1, 0.5, 1.5, 3, "points", ()))] * 9
    assert verdicts.all_of([nearly]) == FAILED
    assert verdicts.all_of([nearly, *others]) == UNCLEAR
    clearly = Part("", Difference(-1, -1.5, -0.5, 3, "points", ()))
    assert verdicts.all_of([clearly, *others]) == FAILED
    assert verdicts.all_of(others) == HELD


def test_the_deciding_comparison_is_the_one_nearest_to_failing() -> None:
    parts = [Part(str(low), Difference(1, low, 2, 3, "points", ())) for low in (0.5, -0.5, 0.7)]
    found = verdicts.deciding([*parts, Part("not measured", None)])
    assert found is parts[1]
    assert verdicts.deciding([Part("", None)]) is None


def test_holms_procedure_says_which_verdicts_stand(exact: dict[str, Experiment]) -> None:
    found = by_name(exact)
    assert all(claim["stands"] for claim in found.values())
    assert {claim["losses_stand"] for claim in found.values() if not claim["losses"]} == {None}
    single = exact["single-task"]
    rows = tuple(row for row in single.rows if row.metric == "loss")
    untold = by_name({"single-task": replace(single, rows=rows)})["d_above_s"]
    assert (untold["stands"], untold["p"], untold["losses_stand"]) == (None, 1.0, True)
