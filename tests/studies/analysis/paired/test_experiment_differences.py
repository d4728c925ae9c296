"""Differences paired by seed, and how sure they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from studies.analysis import items
from studies.analysis.paired import crossed, differences
from studies.analysis.paired.differences import Difference, contrast

T2 = 4.302652729911275  # Student's t, two degrees of freedom, 0.975


def rows(scope: str, values: list[float], reach: float | None, **more: Any) -> list[dict[str, Any]]:
    made = []
    for seed, value in enumerate(values):
        row = {"metric": "accuracy", "value": value, "task": "nlu", "seed": seed, "scope": scope}
        ends = {} if reach is None else {"low": value - reach, "high": value + reach, "n": 100}
        made.append(row | ends | more)
    return made


def compare(experiment: Any, cells: Any = None) -> Difference | None:
    cells = cells or differences.score_cells(experiment)
    return contrast(experiment, cells, [(1, {"scope": "model"}), (-1, {"scope": "matrix"})])


def test_seeds_are_paired_so_what_they_share_cancels(build: Any) -> None:
    given = rows("model", [0.2, 0.5, 0.8], None) + rows("matrix", [0.1, 0.4, 0.7], None)
    found = compare(build("granularity", given))
    assert (found.value, found.seeds, found.unit, found.tasks) == (
        pytest.approx(10),
        3,
        "points",
        ("nlu",),
    )
    assert (found.low, found.high) == pytest.approx((10, 10))


def test_the_interval_is_the_wider_of_seeds_and_items(build: Any) -> None:
    spread = [0.3, 0.4, 0.5]  # differences 10, 0, -10 points: s = 10
    given = rows("model", spread, 0.01) + rows("matrix", spread[::-1], 0.01)
    found = compare(build("granularity", given))
    assert found.high == pytest.approx(T2 * 20 / math.sqrt(3))
    agreeing = rows("model", [0.4] * 3, 0.06) + rows("matrix", [0.3] * 3, 0.08)
    found = compare(build("granularity", agreeing))
    assert found.high - found.value == pytest.approx(10 / math.sqrt(3))


def test_one_seed_has_its_items_and_without_them_nothing(build: Any) -> None:
    given = rows("model", [0.4], 0.03) + rows("matrix", [0.3], 0.04)
    found = compare(build("granularity", given))
    assert (found.low, found.high) == pytest.approx((5, 15))
    given = rows("model", [0.4], None) + rows("matrix", [0.3], None)
    found = compare(build("granularity", given))
    assert (found.low, found.high, found.value) == (None, None, pytest.approx(10))


def test_a_loss_is_better_where_it_is_less_and_its_items_do_not_count(build: Any) -> None:
    given = rows("model", [1.8, 1.8], 0.9, metric="loss")
    given += rows("matrix", [2.0, 2.0], 0.9, metric="loss")
    experiment = build("granularity", given)
    found = compare(experiment, differences.loss_cells(experiment))
    assert found.value == pytest.approx(-100 * math.log(0.9))
    assert found.low == found.value == found.high
    assert differences.text(found) == "loss -10.0 % [-10.0, -10.0], 2 seeds"


def test_over_refusal_is_better_where_it_is_less(build: Any) -> None:
    given = rows("model", [0.1, 0.1], None, metric="over_refusal")
    given += rows("matrix", [0.3, 0.3], None, metric="over_refusal")
    experiment = build("granularity", given)
    found = compare(experiment, [{"metric": "over_refusal", "task": "nlu"}])
    assert found.value == pytest.approx(20)


def test_tasks_are_averaged_and_those_of_one_side_left_out(build: Any) -> None:
    given = rows("model", [0.4], 0.03) + rows("matrix", [0.3], 0.04)
    math_task = {"task": "math", "metric": "exact_match"}
    given += rows("model", [0.2], 0.03, **math_task) + rows("matrix", [0.3], 0.04, **math_task)
    given += rows("model", [0.9], 0.03, task="code", metric="pass_at_1")
    found = compare(build("granularity", given))
    assert found.tasks == ("nlu", "math")
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.high == pytest.approx(math.hypot(3, 4, 3, 4) / 2)


def test_a_seed_that_one_side_lacks_is_left_out(build: Any) -> None:
    given = rows("model", [0.4, 0.5, 0.9], None) + rows("matrix", [0.3, 0.4], None)
    found = compare(build("granularity", given))
    assert (found.seeds, found.value) == (2, pytest.approx(10))


def test_nothing_to_compare(build: Any) -> None:
    assert compare(build("granularity", rows("model", [0.4], 0.1))) is None
    disjoint = rows("model", [0.4], 0.1) + rows("matrix", [0.4], 0.1, seed=7)
    assert compare(build("granularity", disjoint)) is None
    assert differences.text(None) == "not measured"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Difference(3.16, 0.5, 5.9, 3, "points", ()), "+3.2 points [+0.5, +5.9], 3 seeds"),
        (Difference(-0.04, None, None, 1, "points", ()), "0.0 points no interval, 1 seed"),
        (Difference(10, 5, 15, 2, "loss", ()), "loss -9.5 % [-13.9, -4.9], 2 seeds"),
        (Difference(-70, -80, -60, 2, "ratio", ()), "+101.4 % [+82.2, +122.6], 2 seeds"),
    ],
)
def test_texts(found: Difference, text: str) -> None:
    assert differences.text(found) == text


def with_items(scope: str, outcomes: list[list[float]], ids: str, **more: Any) -> list[Any]:
    """Return a row for each seed with the outcome of each item."""
    found = []
    for seed, values in enumerate(outcomes):
        row = {"metric": "accuracy", "task": "nlu", "seed": seed, "scope": scope} | more
        value = sum(values) / len(values)
        row |= {"value": value, "low": value, "high": value, "n": len(values)}
        found.append(row | items.fields(list(ids), values))
    return found


def test_scores_of_the_same_items_are_paired_by_seed_and_item(build: Any) -> None:
    first = [[1, 1, 0, 1, 1, 1], [1, 0, 0, 1, 1, 1]]
    second = [[1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 1, 1]]
    experiment = build(
        "granularity", with_items("model", first, "abcdef") + with_items("matrix", second, "abcdef")
    )
    found = compare(experiment)
    table = 100 * (np.array(first) - np.array(second)).astype(float)
    below, above = crossed.bounded_reach([table], [100])
    reach = crossed.mean([table]).reach
    assert (found.value, found.seeds, found.items) == (pytest.approx(25), 2, 6)
    assert found.value - found.low == pytest.approx(max(reach, below))
    assert found.high - found.value == pytest.approx(max(reach, above))
    assert differences.text(found).endswith(", 2 seeds, 6 items")


def test_losses_of_the_same_items_are_paired_by_seed_and_item(build: Any) -> None:
    generator = np.random.default_rng(0)
    easy = generator.lognormal(1, 1, size=40)  # items differ much more than conditions
    losses = [[easy * generator.lognormal(m, 0.02, 40) for _ in range(3)] for m in (0, 0.1)]
    names = [chr(200 + place) for place in range(40)]
    rows_of = [
        with_items(scope, [list(map(float, v)) for v in values], "".join(names), metric="loss")
        for scope, values in zip(("model", "matrix"), losses, strict=True)
    ]
    experiment = build("granularity", rows_of[0] + rows_of[1])
    found = compare(experiment, differences.loss_cells(experiment))
    assert found.value == pytest.approx(10, abs=1)
    assert 0.2 < found.high - found.value < 5  # unpaired, it would be about 50
    assert found.items == 40


def test_conditions_on_other_items_are_not_paired_by_item(build: Any) -> None:
    values = [[1, 1, 0, 1, 1, 1], [1, 0, 0, 1, 1, 1]]
    same = with_items("model", values, "abcdef")
    other = compare(build("granularity", same + with_items("matrix", values, "abcdeg")))
    assert other.items == 12
    assert (
        other.high
        > compare(build("granularity", same + with_items("matrix", values, "abcdef"))).high
    )


def test_seeds_on_different_items_and_rows_without_items_are_paired_by_seed(build: Any) -> None:
    values = [[1, 1, 0, 1, 1, 1], [1, 0, 0, 1, 1, 1]]
    rows_of = [with_items(s, values, "abcdef") for s in ("model", "matrix")]
    changed = [row | {"item_set": str(row["seed"])} for row in rows_of[0] + rows_of[1]]
    assert compare(build("granularity", changed)).items == 0
    older = [{k: v for k, v in r.items() if k not in ("items", "item_set")} for r in rows_of[0]]
    found = compare(build("granularity", older + rows_of[1]))
    assert (found.items, found.seeds) == (0, 2)


def test_cells_of_the_same_items_add_up_by_item(build: Any) -> None:
    """The safety items after each learned task are the same items, not more of them."""
    outcomes = [[1, 1, 0, 1], [1, 0, 0, 1]]
    given: list[Any] = []
    for method, values in (("lora", outcomes), ("lori-s", outcomes[::-1])):
        for learned in ("nlu", "math"):
            factors = {"metric": "refusal_rate", "task": "safety", "learned": learned}
            rows_of = with_items("", values, "abcd", **factors, method=method)
            given += [{k: v for k, v in row.items() if k != "scope"} for row in rows_of]
    experiment = build("continual", given)
    cells = [{"metric": "refusal_rate", "task": "safety", "learned": t} for t in ("nlu", "math")]
    found = contrast(experiment, cells, [(1, {"method": "lora"}), (-1, {"method": "lori-s"})])
    assert (found.items, found.value) == (4, pytest.approx(0))


def test_an_interval_is_wider_for_more_comparisons() -> None:
    found = Difference(10, 5, 15, 3, "points", (), 0, 2)
    assert found.corrected(1) == pytest.approx((5, 15))
    ratio = crossed.quantile(2, 4) / crossed.quantile(2)
    assert found.corrected(4) == pytest.approx((10 - 5 * ratio, 10 + 5 * ratio))
    assert Difference(1, None, None, 1, "points", ()).corrected(4) == (None, None)


@pytest.mark.parametrize("freedom", [2.0, math.inf])
def test_a_p_value_is_below_5_percent_exactly_if_the_interval_excludes(freedom: float) -> None:
    found = Difference(10, 5, 15, 3, "points", (), 0, freedom)
    assert found.p_above(5) == pytest.approx(0.05)
    assert found.p_below(15) == pytest.approx(0.05)
    assert found.p_above(4) < 0.05 < found.p_above(6)
    assert Difference(1, None, None, 1, "points", ()).p_above(0) == 1
    assert Difference(1, 1, 1, 1, "points", ()).p_above(0) == 0
