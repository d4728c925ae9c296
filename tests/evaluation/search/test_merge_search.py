"""The search for merge weights: what it measures, chooses and refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_excess import EXAMPLES, session

from lori_core.adapters.adapter import Adapter
from lori_core.config import Bound, SearchSection
from lori_core.core.errors import DataError, InputError
from lori_core.data.example import Example
from lori_core.evaluation.search.candidates import Candidate, Measures
from lori_core.evaluation.search.search import (
    SearchResult,
    _outer_weights,
    _towards_safety,
    choose,
    search,
)
from lori_core.merging.learned.weight_groups import MergeWeights
from lori_core.merging.merge_methods import Options
from lori_core.pipeline.merging import Parents
from support import random_adapter

SETS = {"math": EXAMPLES[:4], "code": EXAMPLES[3:]}


def small(key: str, seed: int) -> Adapter:
    return random_adapter("llama", key=key, seed=seed, rank=4, alpha=1)


def parents(method: str = "concat", options: Options | None = None) -> Parents:
    adapters = {"math": small("math", 1), "code": small("code", 2)}
    return Parents(method, adapters, options or Options(), None)


def measures(rules: dict[str, Bound] | None = None, **more: Any) -> Measures:
    own = dict(parents().adapters)
    given: dict[str, Any] = {"examples": SETS, "limit": 4, "task_weights": {}, "safety_task": None}
    given |= more
    return Measures(session(), own, rules=rules or {}, **given)


def run(merging: Parents, measured: Measures, **settings: Any) -> SearchResult:
    section = SearchSection(**{"examples": 4, "batch": 2, "candidates": 2, "steps": 8} | settings)
    first = dict.fromkeys(merging.adapters, 0.5)
    return search(merging, first, section, measured, lambda *_: None, lambda _: None)


def candidate(objective: float, **violations: float) -> Candidate:
    weights = MergeWeights("task", {"math": {"all": 1.0}})
    return Candidate("a", weights, {}, {"math": 1 - objective}, {}, violations, objective)


def test_the_choice_is_the_best_objective_among_those_that_meet_all_rules() -> None:
    assert choose([candidate(0.5), candidate(0.4, refusal=0.1), candidate(0.45)]) == 2
    assert choose([candidate(0.1, refusal=0.2), candidate(0.9, refusal=0.1)]) == 1
    assert choose([candidate(0.3), candidate(0.2)]) == 1


def test_retention_is_one_for_the_own_adapter_and_zero_for_the_base() -> None:
    measured = measures()
    own = {task: measured.own[task] for task in SETS}
    assert measured.retained(own) == {"math": 1.0, "code": 1.0}
    assert measured.objective(own) == 0.0
    if all(measured.base[task] > own[task] for task in SETS):
        assert measured.retained(measured.base) == pytest.approx({"math": 0.0, "code": 0.0})


def test_a_user_may_weigh_the_tasks() -> None:
    assert measures(task_weights={"math": 3.0}).shares == {"math": 0.75, "code": 0.25}


@pytest.mark.parametrize("by", ["task", "layer", "projection"])
def test_the_gradient_finds_weights_with_a_smaller_objective(by: Any) -> None:
    result = run(parents(), measures(), by=by, uniformity=0.0)
    given, found = result.candidates
    assert found.weights.by == by
    assert found.objective < given.objective
    assert result.chosen == 1


def test_a_rule_that_cannot_be_met_is_named_in_the_sentence() -> None:
    result = run(parents(), measures({"retained.math": Bound(at_least=50.0)}), candidates=3)
    assert len(result.candidates) == 3
    assert result.candidates[2].name == "more weight on math"
    assert result.sentence.startswith("No candidate meets all rules of the gate; candidate ")
    assert "at least 50" in result.sentence


def test_a_rule_that_holds_ends_the_search() -> None:
    result = run(parents(), measures({"size_mb": Bound(at_most=100.0)}), candidates=4)
    assert len(result.candidates) == 2
    assert result.candidates[1].rules["size_mb"] < 100
    assert "meets the 1 rules of the gate that were measured" in result.sentence


def test_methods_without_gradients_are_searched_by_trial_with_their_density() -> None:
    merging = parents("ties", Options(density=0.6))
    result = run(merging, measures(), steps=6, candidates=3)
    assert result.candidates[0].weights.density == 0.6
    found = result.weights
    assert found.by == "task"
    assert found.density is not None
    assert 0 < found.density <= 1
    best = min(result.candidates, key=lambda c: c.objective)
    assert result.candidates[result.chosen] == best


def test_a_task_without_validation_examples_is_refused() -> None:
    with pytest.raises(DataError, match="search: code has no validation example with a target"):
        measures(examples=SETS | {"code": [Example("question", "")]})


def test_a_loss_that_is_not_finite_is_refused() -> None:
    broken = small("code", 2)
    broken = replace(broken, values={n: torch.full_like(v, 1e30) for n, v in broken.values.items()})
    merging = Parents("concat", {"math": small("math", 1), "code": broken}, Options(), None)
    with pytest.raises(InputError, match=r"loss of example .* is (nan|inf)"):
        run(merging, measures())


def test_weights_that_refuse_too_little_move_towards_the_safety_adapter_by_bisection() -> None:
    learned = MergeWeights("task", {"math": {"all": 0.8}, "safety": {"all": 0.6}})
    known = [candidate(0.1, refusal=0.2)]
    path = _towards_safety(learned, {"safety"}, known)
    found = []
    for missed in ({"refusal": 0.1}, {}, {"retained.math": 0.1}):
        name, weights = next(path)
        found.append((name, weights.mean("math"), weights.mean("safety")))
        known.append(candidate(0.2, **missed))
    assert found == [
        ("50% of the way from safety alone", 0.4, 0.8),
        ("25% of the way from safety alone", 0.2, 0.9),
        ("38% of the way from safety alone", pytest.approx(0.3), pytest.approx(0.85)),
    ]


def test_the_way_to_the_safety_adapter_begins_at_the_weights_that_miss_least() -> None:
    learned = candidate(0.1, refusal=0.35)
    given = candidate(0.3, refusal=0.2)
    good = candidate(0.3)
    assert _outer_weights(learned.weights, [given, learned]) is given.weights
    assert _outer_weights(learned.weights, [good, learned]) is learned.weights
    assert _outer_weights(given.weights, [learned, given]) is given.weights
