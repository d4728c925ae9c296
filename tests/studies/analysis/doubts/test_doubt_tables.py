"""The excess loss and the learning rates of the experiments about doubts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from lori_core.core.errors import DataError
from studies.analysis import claims, items, tables
from studies.analysis.doubts.tables import excess, learning_rates
from studies.analysis.rows import Experiment

Build = Callable[..., Experiment]


def loss(way: str, merge: str, seed: int, losses: list[float]) -> dict[str, Any]:
    row = {"metric": "loss", "task": "math", "seed": seed, "projection": way, "merge": merge}
    ids = [f"item-{place}" for place in range(len(losses))]
    mean = sum(losses) / len(losses)
    return row | {"value": mean, "n": len(losses)} | items.fields(ids, losses)


def rate(method: str, value: float, losses: dict[str, float], rank: int = 4) -> dict[str, Any]:
    row = {"metric": "learning_rate", "task": "math", "seed": 1, "method": method, "rank": rank}
    return row | {"value": value, "tried": losses}


def test_the_excess_is_paired_by_seed_and_example(build: Build) -> None:
    rows = [
        loss("own", merge, seed, [more + base for base in (1.0, 50.0, 3.0)])
        for seed in (1, 2)
        for merge, more in (("single-task", 0.0), ("concat", 0.5))
    ]
    experiment = build("projections", rows)
    found = excess(experiment, "own", "math")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.seeds == 2
    (table, *_) = tables.build(experiment)
    assert table["rows"][0][0] == "random, one for each task"
    assert table["rows"][0][-1] == "0.50 [0.50-0.50]"


def test_the_excess_of_other_examples_is_paired_by_seed(build: Build) -> None:
    rows = [
        {key: value for key, value in row.items() if key not in ("items", "item_set")}
        for seed, more in ((1, 1.0), (2, 3.0))
        for row in (
            loss("own", "single-task", seed, [5.0, 7.0]),
            loss("own", "concat", seed, [5.0 + more, 7.0 + more]),
        )
    ]
    found = excess(build("projections", rows), "own", "math")
    assert found is not None
    assert found.value == pytest.approx(2.0)
    assert found.low is not None
    assert found.low < 0  # two seeds that differ
    assert excess(build("projections", rows), "shared", "math") is None


def test_a_claim_on_the_excess_is_relative_to_the_adapter_alone(build: Build) -> None:
    """Ten times the loss with ten times the excess is the same interference."""
    sizes = {"own": (1.0, 1.1), "shared": (10.0, 12.0)}
    rows = [
        loss(way, merge, seed, [size * base for base in (1.0, 2.0, 3.0)])
        for seed in (1, 2, 3)
        for way, pair in sizes.items()
        for merge, size in zip(("single-task", "concat"), pair, strict=True)
    ]
    judged = {c["name"]: c for c in claims.judged({"projections": build("projections", rows)})}
    assert judged["shared_a_interferes"]["verdict"] == "held"
    assert judged["shared_a_interferes"]["effect"] == "loss -8.3 % [-8.3, -8.3]"  # 1.1 / 1.2
    assert judged["overlap_costs_nothing"]["verdict"] == "did not hold"
    assert judged["null_space_interferes_less"]["verdict"] == "could not be told"


def test_equal_values_are_those_within_five_percent(build: Build) -> None:
    def rows(count: int) -> list[dict[str, Any]]:
        found = []
        trained = (("lora", 4, 100), ("lora-fa", 8, count), ("lori-d", 8, 102))
        for seed, (method, rank, values) in product((1, 2), trained):
            where = {"method": method, "rank": rank, "task": "math", "seed": seed}
            found.append({"metric": "trainable_parameters", "value": values, **where})
            found.append({"metric": "loss", "value": 2.0, "low": 2.0, "high": 2.0, "n": 9, **where})
        return found

    def judged(count: int) -> dict[str, Any]:
        experiment = build("frozen-a", rows(count))
        return {c["name"]: c for c in claims.judged({"frozen-a": experiment})}

    assert judged(105)["frozen_a_equal_values"]["losses"] == "held"
    assert judged(106)["frozen_a_equal_values"]["losses"] == "could not be told"
    texts = [p["text"] for p in judged(106)["frozen_a_equal_values"]["losses_because"]]
    assert texts[0] == "LoRA-FA against LoRA at as many trained values: not measured"


def test_the_rates_that_were_tried_are_shown_with_their_losses(build: Build) -> None:
    tried = {"0.001": 1.25, "0.01": 1.5}
    rows = [
        rate("lora", 0.001, tried),
        rate("lori-d", 0.003, {"0.001": 3.0, "0.003": 2.0, "0.01": 2.5}),
    ]
    table = learning_rates(build("frozen-a", rows))
    assert table["columns"] == [
        "task", "method", "rank", "validation loss at 0.001", "validation loss at 0.003",
        "validation loss at 0.01", "chosen",
    ]  # fmt: skip
    assert table["rows"] == [
        ["math", "LoRA", "4", "1.25", "-", "1.5", "0.001 (at the edge)"],
        ["math", "LoRI-D", "4", "3", "2", "2.5", "0.003"],
    ]


@pytest.mark.parametrize("tried", ["0.1", {"fast": 1.0}, {"0.1": None}, {"0.1": "nan"}, [0.1]])
def test_candidates_of_another_form_are_refused(build: Build, tried: Any) -> None:
    with pytest.raises(DataError, match="row 1: tried: expected losses by learning rate"):
        build("frozen-a", [rate("lora", 0.001, {}) | {"tried": tried}])
