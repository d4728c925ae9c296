"""The benchmarks of merging and of its forecasts, at the smallest size."""

from typing import Any

import pytest
from test_merge_search import measures, parents

from benchmarks import excess_forecast, merge_methods, merging
from lori_core.config import Bound
from lori_core.data.prompts import Encoded
from support import tiny


@pytest.mark.parametrize("method", ["ties", "knots_ties", "dare_ties_svd"])
def test_growth_has_the_seconds_of_each_number_of_adapters(method: str) -> None:
    seconds = merging.growth(method, side=16, rank=2, counts=(2, 4))
    assert list(seconds) == [2, 4]
    assert all(value > 0 for value in seconds.values())


def test_steepness_is_one_for_linear_growth_and_the_ratio_for_quadratic_growth() -> None:
    assert merging.steepness({5: 1.0, 10: 3.0, 20: 6.0}) == 1.0
    assert merging.steepness({10: 1.0, 20: 4.0}) == 2.0


def test_the_table_of_methods_has_a_row_for_each_method() -> None:
    adapters = dict(parents().adapters)
    names = ["concat", "ties", "knots_ties"]
    measured = measures({"size_mb": Bound(at_most=100.0)})
    found = list(merge_methods.rows("LoRI-S", measured, adapters, names, 0.5, 0.7))
    assert [(row["method"], row["rank"]) for row in found] == [
        ("concat", 8),
        ("ties", 4),
        ("knots_ties", 8),
    ]
    for row in found:
        kept = row["by_task"]
        assert row["retained"] == pytest.approx(sum(kept.values()) / len(kept))
        assert row["least"] == min(kept.values())
        assert row["refusal"] is None
        assert row["seconds"] > 0
    lines = merge_methods.table(found).splitlines()
    assert lines[0].startswith("| kind | method | retained | least | refusal | seconds |")
    assert lines[3].startswith("| LoRI-S | `ties` | ")
    assert lines[3].endswith(" | 4 |")


def test_methods_for_two_adapters_or_a_safety_adapter_are_left_out_where_they_do_not_fit() -> None:
    four, two = set(merge_methods.methods(4)), set(merge_methods.methods(2))
    assert two - four == {"safemerge"}
    assert "on_safety" not in two
    assert {"concat", "tsv", "core_space_ties"} <= four


def test_forecasts_of_pairs_are_compared_with_what_is_measured() -> None:
    adapters = dict(parents().adapters)
    rows = {task: [Encoded([5, 6, 7 + n], [8, 9, 3], False) for n in range(2)] for task in adapters}
    found = list(excess_forecast.pairs(tiny("llama")[0], adapters, rows, [0.01, 1.0], 0))
    assert [(row["weight"], row["task"], row["other"]) for row in found] == [
        (0.01, "math", "code"),
        (0.01, "code", "math"),
        (1.0, "math", "code"),
        (1.0, "code", "math"),
    ]
    for row in found[:2]:  # a small weight: the first order is all
        assert row["by_gradient"] == pytest.approx(row["measured"], rel=0.1, abs=2e-5)
        assert 0 <= row["by_files"] <= 1


def test_a_rank_correlation_has_an_interval() -> None:
    numbers: list[Any] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert excess_forecast.correlation(numbers, [x**3 for x in numbers])["rho"] == 1.0
    mixed = excess_forecast.correlation(numbers, [2.0, 1.0, 4.0, 3.0, 6.0, 5.0])
    assert mixed["low"] < mixed["rho"] < mixed["high"] <= 1.0
    assert mixed["n"] == 6
