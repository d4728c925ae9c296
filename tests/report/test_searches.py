"""The searches for merge weights in the report."""

from pathlib import Path
from typing import Any

from lori_core import config
from lori_core.core.files.atomic import write_json
from lori_core.report import origins, searches
from support import smoke_params


def candidate(name: str, math: float, code: float, refusal: float, missed: bool) -> dict[str, Any]:
    return {
        "name": name,
        "weights": {"weights": {"math": {"0": 0.25, "1": 0.75}, "code": {"0": 1.0, "1": 1.0}}},
        "retained": {"math": math, "code": code},
        "rules": {"refusal": refusal, "over_refusal": 0.1},
        "violations": {"refusal": 0.2} if missed else {},
    }


FACTS: dict[str, Any] = {
    "searched": True,
    "chosen": 1,
    "sentence": "Candidate 2 of 3.",
    "candidates": [
        candidate("given weights", 0.9, 0.7, 0.3, True),
        candidate("learned weights", 0.9, 0.9, 0.5, False),
        candidate("more weight on safety", 0.5, 0.7, 0.8, False),
    ],
}


def test_the_table_has_a_row_for_each_candidate() -> None:
    table = searches.table({"safe": FACTS})
    assert table["rows"][0] == [
        "safe, 1: given weights", "math 0.50, code 1.00", "80", "70 (code)", "30", "10", "refusal",
    ]  # fmt: skip
    assert table["rows"][1][0] == "safe, 2: learned weights (chosen)"
    assert table["rows"][1][-1] == "none"
    assert searches.sentences({"safe": FACTS}) == ["Weights of the merge safe: Candidate 2 of 3."]


def test_the_lineage_tree_names_the_searched_weights(tmp_path: Path) -> None:
    values = smoke_params().model_dump(mode="json")
    values["continual"]["method"] = {"name": "lori-s-mix", "share": 0.2}
    for folder, name, content in (
        ("merge", "concat", {"content_key": "ab"}),
        ("merge", "linear", {"content_key": "cd"}),
        ("search", "concat", FACTS),
        ("continual", "math", {"content_key": "ef"}),
    ):
        write_json(tmp_path / folder / f"{name}.json", content)
    trees = origins.trees(config.parse(values, "params.yaml"), tmp_path, tmp_path / "missing.json")
    facts = {tree.name: tree.facts for tree in trees}
    assert facts["artifacts/merged/concat"][1] == "searched weights code 1.00, math 0.50"
    assert facts["artifacts/merged/linear"][1].startswith("weights 0.")
    assert facts["artifacts/continual/math/adapter"][0] == "method lori-s-mix"


def test_the_front_has_the_points_that_no_other_beats() -> None:
    label, points = searches.points(FACTS)
    assert label == "refusal of harmful requests, %"
    assert [(round(x), round(y)) for x, y in points] == [(80, 30), (90, 50), (60, 80)]
    assert searches.front(points) == [2, 1]
    assert searches.front([(1.0, 1.0), (1.0, 1.0), (0.5, 2.0)]) == [2, 0, 1]


def test_without_refusals_the_second_axis_is_the_least_gain_kept() -> None:
    facts = {**FACTS, "candidates": [c | {"rules": {}} for c in FACTS["candidates"]]}
    label, points = searches.points(facts)
    assert label == "least gain retained by a task, %"
    assert round(points[0][1]) == 70
