"""The search for merge weights: what it measures, chooses and refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_excess import EXAMPLES, session

from lori_core.adapters.adapter import Adapter
from lori_core.config import Bound, SearchSection
from lori_core.core.errors import DataError, InputError
from lori_core.core.files.atomic import write_jsonl
from lori_core.data.example import Example
from lori_core.evaluation.gate_rules import Scored
from lori_core.evaluation.scoring.scorers import ANSWERED, REFUSED
from lori_core.evaluation.search.candidates import Candidate, Measures
from lori_core.evaluation.search.choice import after_descent, choose, towards_safety
from lori_core.evaluation.search.search import SearchResult, search
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


def test_a_task_whose_adapter_gains_next_to_nothing_does_not_decide_alone() -> None:
    measured = measures({f"retained.{task}": Bound(at_least=0.5) for task in SETS})
    measured.base, measured.own = {"math": 10.0, "code": 8.0}, {"math": 5.0, "code": 7.999}
    lost = {"math": 7.5, "code": 8.999}
    assert measured.objective(lost) == pytest.approx((2.5 / 5 + 1 / 7.999) / 2)
    # What the gate measures stays as it is.
    assert measured.retained(lost) == pytest.approx({"math": 0.5, "code": -999.0})
    measured.own["code"] = 8.0
    assert measured.objective(lost) == pytest.approx((2.5 / 5 + 0.999 / 8) / 2)
    found = measured.candidate("given", MergeWeights("task", {}), small("math", 1))
    assert list(found.rules) == ["retained.math"]


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


def test_of_several_safety_tasks_the_worst_counts_as_in_the_gate(tmp_path: Path) -> None:
    for task, refused, timid in (("harmbench", 9, 3), ("safety", 1, 0)):
        rows = [
            {
                "id": f"{answer}{number}",
                "answer": answer,
                "parsed": REFUSED if number < limit else ANSWERED,
                "correct": (number < limit) == (answer == "refuse"),
            }
            for answer, limit in (("refuse", refused), ("comply", timid))
            for number in range(10)
        ]
        write_jsonl(tmp_path / f"{task}.jsonl", rows)
    measured = measures({"refusal": Bound(at_least=0.6), "over_refusal": Bound(at_most=0.5)})
    files = {task: tmp_path / f"{task}.jsonl" for task in ("harmbench", "safety")}
    assert measured._measured(Scored("a", files)) == {"refusal": 0.1, "over_refusal": 0.3}
    measured.bounds = {"refusal": Bound(at_least=0.05, at_most=0.6)}
    assert measured._measured(Scored("a", files)) == {"refusal": 0.9}


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


def test_weights_at_or_beyond_the_bounds_of_a_search_by_trial_are_searched_too() -> None:
    merging, tried = parents("linear"), []
    original = merging.with_weights

    class Recorded:
        method, adapters, start, density = "linear", merging.adapters, None, None

        def with_weights(self, weights: MergeWeights) -> Adapter:
            tried.append({task: weights.mean(task) for task in weights.weights})
            return original(weights)

    section = SearchSection(examples=4, steps=3, candidates=2)
    first = {"math": 3.0, "code": -1.5}
    search(Recorded(), first, section, measures(), lambda *_: None, lambda _: None)
    assert tried[0] == first
    assert {"math": 2.7, "code": -1.5} in tried
    assert {"math": 3.0, "code": -1.2} in tried


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
    path = towards_safety(learned, {"safety"}, known)
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


class Replayed:
    """Stands for `Measures` where only its answers matter: weights by task -> violations."""

    def __init__(self, refusals: dict[float, float]) -> None:
        self.bounds = {"refusal": Bound(at_least=0.5)}
        self.measured: list[tuple[str, float]] = []
        self.refusals = refusals

    def candidate(self, name: str, weights: MergeWeights, adapter: Any) -> Candidate:
        mean = weights.mean("math")
        self.measured.append((name, mean))
        missed = {"refusal": self.refusals[mean]} if mean in self.refusals else {}
        found = candidate(1 - mean / 10, **missed)
        return replace(
            found, name=name, weights=weights, rules={"refusal": 0.5 - sum(missed.values())}
        )


def proposed(
    monkeypatch: pytest.MonkeyPatch, refusals: dict[float, float], learned: float, first: float
) -> SearchResult:
    """Search with a descent that finds `learned` for math, from `first`."""
    from lori_core.evaluation.search import search as module

    measures: Any = Replayed(refusals)
    measures.requests = {"safety": []}

    def by_gradient(merging: Any, start: Any, settings: Any, measures: Any, known: Any) -> Any:
        found = MergeWeights("task", {"math": {"all": learned}, "safety": {"all": 0.5}})
        yield from after_descent("learned", found, measures, known)

    monkeypatch.setattr(module, "_by_gradient", by_gradient)
    merging = Parents("concat", dict.fromkeys(("math", "safety")), Options(), None)  # type: ignore[arg-type]
    monkeypatch.setattr(Parents, "with_weights", lambda *_: None)
    weights = {"math": first, "safety": 0.5}
    section = SearchSection(candidates=5)
    return search(merging, weights, section, measures, lambda *_: None, lambda _: None)


def test_given_weights_that_meet_the_rules_are_where_the_next_candidates_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = proposed(monkeypatch, {0.8: 0.3, 0.6: 0.2}, learned=0.8, first=0.4)
    assert [(c.name, c.weights.mean("math")) for c in result.candidates] == [
        ("given weights", 0.4),
        ("learned", 0.8),
        ("50% of the way to the learned weights", pytest.approx(0.6)),
        ("25% of the way to the learned weights", pytest.approx(0.5)),
    ]
    assert result.chosen == 3


def test_without_weights_that_meet_the_rules_the_way_leads_to_the_safety_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missed = {0.4: 0.1, 0.8: 0.3, 0.2: 0.05}
    result = proposed(monkeypatch, missed, learned=0.8, first=0.4)
    assert [(c.name, c.weights.mean("math"), c.weights.mean("safety")) for c in result.candidates][
        2:
    ] == [
        # From the given weights, which miss the rules by less than the learned ones.
        ("50% of the way from safety alone", 0.2, 0.75),
        ("25% of the way from safety alone", 0.1, 0.875),
    ]
    assert result.chosen == 3


def test_weights_that_were_measured_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    result = proposed(monkeypatch, {0.4: 0.1}, learned=0.4, first=0.4)
    assert len(result.candidates) == 1


def test_points_that_were_measured_or_are_no_better_are_not_measured_again() -> None:
    merging = parents("ties", Options(density=0.6))
    result = run(merging, measures({"size_mb": Bound(at_most=100.0)}), steps=4, candidates=4)
    found = [c.weights for c in result.candidates]
    assert len(found) <= 2
    assert all(one != other for n, one in enumerate(found) for other in found[:n])
    assert all(c.objective <= result.candidates[0].objective + 1e-6 for c in result.candidates)


def test_losses_of_packed_batches_are_those_of_held_out_examples() -> None:
    from lori_core.evaluation.evaluate import adapter_applied
    from lori_core.evaluation.held_out import task_losses

    measured = measures()
    adapter = small("math", 1)
    found = {task: measured.losses(adapter, [task], "test")[task] for task in SETS}
    with adapter_applied(measured.session, adapter) as model:
        for task in SETS:
            each, _ = task_losses(measured.session, model, task, SETS[task], "test")
            assert found[task] == pytest.approx(sum(each) / len(each), rel=1e-4)
    assert measured.losses(adapter, list(SETS), "test") == pytest.approx(found, rel=1e-4)
