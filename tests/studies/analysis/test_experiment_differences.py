"""Differences paired by seed, and how sure they are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from studies.analysis import differences
from studies.analysis.differences import Difference, contrast

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
