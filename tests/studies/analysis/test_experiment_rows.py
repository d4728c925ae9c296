"""An experiment's file: what is refused, and what several seeds say together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import experiment_rows
import pytest

from lori_core.core.errors import DataError, InputError
from lori_core.core.files.atomic import write_json
from lori_core.methods.catalogue import BUILT_IN
from studies.analysis import items, rows, specs

ROW = {"metric": "accuracy", "value": 0.5, "task": "nlu", "seed": 1, "scope": "model"}


def score(value: float, seed: int, reach: float | None = None, **more: Any) -> dict[str, Any]:
    row = ROW | {"value": value, "seed": seed} | more
    return row if reach is None else row | {"low": value - reach, "high": value + reach, "n": 100}


def test_every_experiment_is_read_back(drawn: Path) -> None:
    found = rows.read_folder(drawn)
    assert list(found) == list(specs.SPECS) == list(experiment_rows.MAKERS)
    assert found["single-task"].tasks() == ["nlu", "math", "code", "safety"]
    assert found["single-task"].levels("method") == ["base", *BUILT_IN]
    assert found["granularity"].levels("scope") == list(specs.SCOPES)
    assert found["merge-weights"].levels("weight") == [0.2, 0.3, 0.4, 0.5]
    assert found["continual"].seeds() == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": ""}, "row 2: metric: expected a name, got ''"),
        ({"task": None}, "row 2: task: expected a name or an empty string, got None"),
        ({"seed": 1.5}, "row 2: seed: expected a whole number, got 1.5"),
        ({"value": "high"}, "row 2: value: expected a finite number or null, got 'high'"),
        ({"value": 1.5}, "row 2: value: accuracy is a share from 0 to 1, got 1.5"),
        ({"low": 0.6, "high": 0.7}, "row 2: value 0.5 is outside its interval [0.6, 0.7]"),
        ({"n": -1}, "row 2: n: expected a number of items, got -1"),
        ({"scope": None}, "row 2: scope: missing; this experiment varies it, so each row has one"),
        ({"scope": "layr"}, "row 2: scope 'layr' is unknown; did you mean 'layer'? (allowed: "),
        ({"items": "0110"}, "row 2: items, item_set: expected two texts, got '0110', ''"),
        ({"items": "01x0", "item_set": "a"}, "row 2: items: expected a 1 or a 0 for each item"),
        ({"items": "1110", "item_set": "a"}, "row 2: value 0.5 is not the mean of its items, 0.75"),
        ({"items": "0.5 nan", "item_set": "a"}, "row 2: items: expected a 1 or a 0"),
        ({"seed": 1}, "row 2: the same accuracy of nlu as row 1, seed 1; one number for each"),
    ],
)
def test_a_bad_row_is_one_line_with_its_number_and_field(
    build: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as raised:
        build("granularity", [ROW, ROW | {"seed": 2} | change])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("granularity", [], "expected an object with experiment, info and rows"),
        ("granularity", {"experiment": "granulrity", "rows": []}, "did you mean 'granularity'?"),
        ("structured", {"experiment": "granularity", "rows": []}, "name the file granularity.json"),
        ("granularity", {"experiment": "granularity", "rows": []}, "rows is empty"),
        ("granularity", {"experiment": "granularity", "rows": [], "info": 1}, "info: expected an"),
        ("granularity", {"experiment": "granularity", "rows": [1]}, "row 1: expected an object"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str, content: Any, message: str) -> None:
    write_json(tmp_path / f"{name}.json", content)
    with pytest.raises(DataError, match=re.escape(message)):
        rows.read_folder(tmp_path)


def test_a_folder_without_experiments_and_one_with_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no experiment has run; start one with"):
        rows.read_folder(tmp_path)
    write_json(tmp_path / "notes.json", {})
    with pytest.raises(DataError, match=r"notes\.json: experiment 'notes' is unknown"):
        rows.read_folder(tmp_path)


def test_seeds_give_students_interval_where_it_is_the_wider(build: Any) -> None:
    made = build("granularity", [score(v, s, 0.05) for s, v in enumerate((0.4, 0.5, 0.6))])
    found = made.estimate("accuracy", "nlu", scope="model")
    assert (found.value, found.seeds, found.n) == (pytest.approx(0.5), 3, 300)
    # t_2(0.975) = 4.302653, s = 0.1, over the root of 3
    assert (found.low, found.high) == pytest.approx((0.5 - 0.248414, 0.5 + 0.248414), abs=1e-6)


def test_seeds_that_agree_do_not_make_a_score_certain(build: Any) -> None:
    made = build("granularity", [score(0.5, seed, 0.09) for seed in (1, 2, 3)])
    found = made.estimate("accuracy", "nlu", scope="model")
    assert (found.low, found.high) == pytest.approx((0.41, 0.59))


def test_the_base_model_s_one_run_is_not_three(build: Any) -> None:
    """It is not trained, so its numbers are the same for each seed."""
    losses = [score(2.0, seed, 0.9, metric="loss") for seed in (1, 2, 3)]
    found = build("granularity", losses).estimate("loss")
    assert (found.low, found.high) == pytest.approx((1.1, 2.9))


@pytest.mark.parametrize(
    ("given", "interval"),
    [
        ([score(0.5, 1, 0.1)], (0.4, 0.6)),
        ([score(0.5, 1)], (None, None)),
        ([score(0.0, 1), score(1.0, 2)], (0.0, 1.0)),
    ],
)
def test_one_seed_has_its_items_interval_and_shares_end_at_0_and_1(
    build: Any, given: list[dict[str, Any]], interval: tuple[float | None, float | None]
) -> None:
    found = build("granularity", given).estimate("accuracy")
    assert (found.low, found.high) == interval


def test_what_has_no_value_is_no_number(build: Any) -> None:
    made = build("granularity", [ROW | {"value": None}])
    assert made.estimate("accuracy") is None
    assert made.by_seed("accuracy") == {}


def test_a_tasks_main_measure_is_its_score_or_else_its_loss(build: Any) -> None:
    given = [ROW, ROW | {"metric": "loss"}, ROW | {"metric": "loss", "task": "code"}]
    assert build("granularity", given).main_measures() == [("nlu", "accuracy"), ("code", "loss")]


def test_several_rows_of_a_seed_are_averaged_first(build: Any) -> None:
    given = [score(0.2, 1), score(0.4, 1, scope="layer"), score(0.6, 2)]
    made = build("granularity", given)
    assert made.by_seed("accuracy") == pytest.approx({1: 0.3, 2: 0.6})
    assert made.by_seed("accuracy", "nlu", scope=("layer", "matrix")) == {1: 0.4}


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([1, 0, 1, 1], "1011"),
        ([1.0], "1"),
        ([0.5, 1.0], "0.5 1"),
        ([12.34567, 0.25], "12.346 0.25"),
        ([2.5], "2.5 "),
    ],
)
def test_outcomes_of_items_are_short_text(outcomes: list[float], text: str) -> None:
    found = items.fields([str(place) for place in range(len(outcomes))], outcomes)
    assert found["items"] == text
    assert items.decode(text, "here") == pytest.approx(outcomes, rel=1e-4)
    assert found["item_set"] == items.digest(map(str, range(len(outcomes))))
    assert found["item_set"] != items.digest(["other"])


def test_a_row_has_the_outcomes_of_its_items(build: Any) -> None:
    row = ROW | {"items": "0110", "item_set": "abc"}
    (found,) = build("granularity", [row]).rows
    assert (found.items, found.item_set) == ((0, 1, 1, 0), "abc")
