"""Which points the experiments about doubts have: equal budgets, and nothing trained twice."""

from __future__ import annotations

from typing import Any

import pytest

from lori_core import config
from lori_core.core.errors import ConfigError
from studies import catalogue, points, results, stages
from studies.points import Collect, Orthogonality, Points, Projection, Score, Train
from support import smoke_params

RATES = (1e-3, 1e-2)


def build(name: str, **changes: Any) -> Points:
    return catalogue.build(smoke_params(seeds=[1, 2], candidate_rates=RATES, **changes), [name])


def trains(found: Points) -> list[Train]:
    return [point for point in found.by_name.values() if isinstance(point, Train)]


def cells(found: Points, name: str) -> list[tuple[Any, points.Cell]]:
    collected = found.by_name[name]
    assert isinstance(collected, Collect)
    return [(found.by_name[cell.point], cell) for cell in collected.cells]


@pytest.mark.parametrize("name", ["frozen-a", "projections", "random-masks"])
def test_every_condition_tries_the_same_rates_with_its_own_settings(name: str) -> None:
    found = build(name)
    chosen = [point for point, _ in cells(found, name) if isinstance(point, Train)]
    assert chosen
    for point in chosen:
        tried = [found.by_name[other] for other in point.tries]
        assert [t.training.learning_rate for t in tried if isinstance(t, Train)] == list(RATES)
        for one in tried:
            assert isinstance(one, Train)
            assert one.lori == point.lori.model_copy(update={"seed": 1})
            same = ("task", "method", "options", "projection", "start")
            assert [getattr(one, key) for key in same] == [getattr(point, key) for key in same]
            rates = {"learning_rate": point.training.learning_rate}
            assert one.training.model_copy(update=rates) == point.training


def test_frozen_a_has_larger_ranks_with_the_same_scaling() -> None:
    found = build("frozen-a", compared_tasks=["math"])
    levels = {
        (cell.factors["method"], cell.factors["rank"]): point
        for point, cell in cells(found, "frozen-a")
        if isinstance(point, Train)
    }
    rank = smoke_params().lori.rank
    assert list(levels) == [
        ("lora", rank), ("lora-fa", rank), ("lora-fa", 2 * rank), ("lori-d", rank),
        ("lori-d", 2 * rank),
    ]  # fmt: skip
    for (_, own), point in levels.items():
        assert point.lori.rank == own
        assert point.lori.lora_alpha / own == smoke_params().lori.lora_alpha / rank


def test_a_phases_own_alpha_grows_with_the_rank() -> None:
    params = smoke_params(seeds=[1], frozen_a_ranks=[4], compared_tasks=["math"])
    values = params.model_dump(mode="json")
    values["tasks"]["math"]["calibration"]["lora_alpha"] = 5
    found = catalogue.build(config.parse(values, "params.yaml"), ["frozen-a"])
    alphas = {p.training.lora_alpha for p in trains(found) if p.method == "lori-d"}
    assert alphas == {20}


def test_a_rank_that_no_run_may_have_is_refused() -> None:
    params = smoke_params(frozen_a_ranks=[64])
    params = params.model_copy(update={"lori": params.lori.model_copy(update={"rank": 2**12})})
    with pytest.raises(ConfigError, match=r"frozen_a_ranks: 64 times lori.rank 4096 is above"):
        catalogue.build(params, ["frozen-a"])


def test_a_is_drawn_in_three_ways_and_the_ordinary_one_needs_no_new_run() -> None:
    found = build("projections")
    drawn = {
        (cell.factors["projection"], point.task): point.projection
        for point, cell in cells(found, "projections")
        if isinstance(point, Train)
    }
    assert drawn["own", "math"] is None
    assert drawn["shared", "math"] == drawn["shared", "safety"] == Projection(key="shared")
    assert drawn["null-space", "math"] == Projection(avoid=("safety",), examples=4)
    assert drawn["null-space", "safety"] == Projection(avoid=("math",), examples=4)
    at_full_rank = {p for p in build("frozen-a").by_name if p.startswith("train-lori-d-math")}
    assert at_full_rank & set(found.by_name)


def test_the_excess_is_measured_on_losses_of_the_merge_and_of_each_alone() -> None:
    found = build("projections")
    scores = [(p, c) for p, c in cells(found, "projections") if isinstance(p, Score)]
    assert all(point.scored == () for point, _ in scores)
    alone = [(p, c) for p, c in scores if c.factors["merge"] == "single-task"]
    merged = [(p, c) for p, c in scores if c.factors["merge"] == "concat"]
    assert (len(merged), len(alone)) == (3 * 2, 3 * 2 * 2)
    for point, _ in merged:
        assert point.losses == ("math", "safety")
        assert point.models["model"].weights == (0.4, 0.4)
    for point, _ in alone:
        assert len(point.losses) == 1
        mixture = point.models["model"]
        assert (mixture.method, mixture.weights) == ("concat", (0.4,))
    overlaps = [p for p, _ in cells(found, "projections") if isinstance(p, Orthogonality)]
    assert len({points.name_of(p) for p in overlaps}) == 3 * 2


def test_one_task_has_nothing_to_interfere_with() -> None:
    params = smoke_params()
    section = params.experiments.model_copy(update={"tasks": ("math",)})
    with pytest.raises(ConfigError, match=r"experiments.tasks: projections merges"):
        catalogue.build(params.model_copy(update={"experiments": section}), ["projections"])


def test_masks_are_compared_at_about_as_many_trained_values() -> None:
    found = build("random-masks", ablation_tasks=["math"])
    levels = {
        cell.factors["mask"]: point
        for point, cell in cells(found, "random-masks")
        if isinstance(point, Train)
    }
    lori = smoke_params().lori
    assert {mask: (p.method, p.lori.importance, p.lori.rank) for mask, p in levels.items()} == {
        "magnitude": ("lori-s", "magnitude", lori.rank),
        "random": ("lori-s", "random", lori.rank),
        "low-rank": ("lori-d", "magnitude", max(1, round(lori.rank * (1 - lori.sparsity)))),
        "none": ("lori-d", "magnitude", lori.rank),
    }
    assert levels["random"].mask_of is None
    assert levels["magnitude"].mask_of is not None
    calibrated = found.by_name[levels["magnitude"].mask_of]
    assert calibrated == levels["none"]  # the mask comes from the tuned run without a mask


def test_a_projection_decides_the_key_and_the_data_of_a_run() -> None:
    found = build("projections")
    shared, moved = (
        next(p for p in trains(found) if p.projection is not None and test(p.projection))
        for test in (lambda p: p.key is not None, lambda p: bool(p.avoid))
    )
    assert results.params_of(shared).projection_key(shared.task) == "shared"
    assert results.params_of(moved).projection_key(moved.task) == moved.task
    assert moved.projection is not None
    other = moved.projection.avoid[0]
    assert f"data/{other}/train.jsonl" in stages.data_of(moved)
    assert f"data/{other}/train.jsonl" not in stages.data_of(shared)


def test_points_without_a_projection_keep_their_names() -> None:
    found = catalogue.build(smoke_params(seeds=[1]), ["granularity"])
    dumped = [point.model_dump(mode="json") for point in trains(found)]
    assert all("projection" not in values and "safety" not in values for values in dumped)
