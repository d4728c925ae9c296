"""The summary of a run made by hand: who is compared with whom, and what the tables say."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from lori_core.core.errors import DataError
from lori_core.core.files.atomic import read_json, read_jsonl, write_json, write_jsonl
from lori_core.evaluation import paired_comparison
from lori_core.evaluation.scoring.verdict_shares import VERDICTS
from lori_core.report import summary, tables

NULL = {"score": None, "low": None, "high": None, "n": 0}
OWN = "LoRI-S, each on its own"


def build(workspace: Any) -> dict[str, Any]:
    return summary.build(workspace.params, workspace.metrics, workspace.evaluations)


def table(built: dict[str, Any], name: str) -> dict[str, list[str]]:
    """Return a table's cells by the first column."""
    (found,) = [made for made in built["tables"] if made["name"] == name]
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
    return {row[0]: row[1:] for row in found["rows"]}


def edit(path: Any, row: str, task: str, **changes: Any) -> None:
    scores = read_json(path)
    scores[row][task] |= changes
    write_json(path, scores)


def test_every_model_is_compared_with_the_base_and_descendants_with_lori_s(
    workspace: Any,
) -> None:
    built = build(workspace)
    merges = {f"LoRI-S merged, {name}" for name in ("concat", "linear")}
    continual = {f"safety, then {task}": task for task in ("nlu", "math", "code")}
    tasks = ("nlu", "math", "code", "safety")
    expected = {
        (model, against, task)
        for models, against in (
            ({"LoRI-D, each on its own", OWN} | merges, "base"),
            (merges, OWN),
        )
        for model in models
        for task in tasks
    } | {
        (model, against, task)
        for model, own in continual.items()
        for against in ("base", OWN)
        for task in (own, "safety")
    }
    scores = [c for c in built["comparisons"] if c["measure"] != "over_refusal"]
    assert {(c["model"], c["against"], c["task"]) for c in scores} == expected
    assert len(scores) == len(expected)
    over = [c for c in built["comparisons"] if c["measure"] == "over_refusal"]
    assert {c["task"] for c in over} == {"safety"}
    assert len(over) == sum(task == "safety" for _, _, task in expected)


def test_differences_are_those_of_the_scores(workspace: Any) -> None:
    built = build(workspace)
    scores = {row["model"]: row["scores"] for row in built["rows"]}
    for item in built["comparisons"]:
        sides = [scores[item[side]][item["task"]] for side in ("model", "against")]
        if item["measure"] == "over_refusal":
            sides = [side["over_refusal"] for side in sides]
        assert item["difference"] == pytest.approx(sides[0]["score"] - sides[1]["score"])
        assert item["n"] == sides[0]["n"]
        assert item["low"] <= item["difference"] <= item["high"]


def test_a_star_marks_what_differs_from_the_base(workspace: Any) -> None:
    built = build(workspace)
    rows = {row["model"]: row for row in built["table"]}
    assert "*" not in "".join(rows["base"].values())
    for item in built["comparisons"]:
        if item["against"] == "base":
            over = item["measure"] == "over_refusal"
            cell = rows[item["model"]]["over-refusal" if over else item["task"]]
            assert cell.endswith("*") == (item["p"] < 0.05)
    assert rows[OWN]["nlu"] == "78 [62-89]*"
    assert rows["LoRI-S merged, linear"]["safety"] == "53 [34-72]"
    assert summary.STAR in summary.facts(built)


def test_forgetting_is_safety_before_and_after(workspace: Any) -> None:
    own = workspace.verdicts("adapters/safety", "adapter", "safety")
    after = workspace.verdicts("continual/nlu", "continual", "safety")
    found = paired_comparison.compare(after, own, "refuse")
    cells = table(build(workspace), "forgetting")["safety, then nlu"]
    assert cells == ["90 [73-98]", "70 [51-85]", "-20.0 [-40.3, +1.4]", "0.070"]
    assert (found.difference, round(found.p, 3)) == (pytest.approx(-0.2), 0.07)


def test_without_evaluations_nothing_is_compared(workspace: Any) -> None:
    shutil.rmtree(workspace.evaluations)
    built = build(workspace)
    assert built["comparisons"] == []
    assert built["table"][2]["nlu"] == "78 [62-89]"
    assert summary.STAR not in summary.facts(built)
    cells = table(built, "forgetting")["safety, then nlu"]
    assert cells == ["90 [73-98]", "70 [51-85]", "-", "-"]
    assert "against_own" not in {made["name"] for made in built["tables"]}


def test_a_missing_group_is_left_out_but_a_missing_file_is_not(workspace: Any) -> None:
    shutil.rmtree(workspace.evaluations / "merged" / "linear")
    models = {item["model"] for item in build(workspace)["comparisons"]}
    assert "LoRI-S merged, concat" in models
    assert "LoRI-S merged, linear" not in models
    workspace.verdicts("merged/concat", "concat", "math").unlink()
    with pytest.raises(DataError, match=r"concat/math\.jsonl: no such file"):
        build(workspace)


def test_evaluations_of_other_items_are_refused(workspace: Any) -> None:
    path = workspace.verdicts("adapters/nlu", "adapter", "nlu")
    write_jsonl(path, read_jsonl(path)[3:])
    with pytest.raises(DataError, match=r"3 ids are in only one of them"):
        build(workspace)


@pytest.mark.parametrize("name", ["evaluate/adapters/nlu.json", "interference.json"])
def test_metrics_of_version_0_1_0_are_refused_by_name(workspace: Any, name: str) -> None:
    path = workspace.metrics / name
    rows = read_json(path)
    write_json(path, {"lori-s" if row == "adapter" else row: rows[row] for row in rows})
    with pytest.raises(DataError, match=f"{name}: has the row 'lori-s' of version 0.1.0"):
        build(workspace)


def test_each_adapter_keeps_its_own_score_by_the_harness(workspace: Any) -> None:
    letters = {"metric": "acc", "low": 0.1, "high": 0.9, "n": 4}
    groups = {"base/base": "base", "merged/concat": "concat", "merged/linear": "linear"}
    groups |= {f"adapters/{task}": "adapter" for task in workspace.params.tasks}
    for place, (group, row) in enumerate(groups.items()):
        path = workspace.scores(group)
        scores = read_json(path)
        scores[row]["lm-eval/letters"] = {**letters, "score": place / 10}
        write_json(path, scores)
    built = build(workspace)
    own = next(row for row in built["rows"] if row["model"] == OWN)
    named = {name: s["score"] for name, s in own["scores"].items() if "lm-eval" in name}
    tasks = list(workspace.params.tasks)
    assert named == {f"lm-eval/letters.{t}": (n + 3) / 10 for n, t in enumerate(tasks)}
    metrics = {name: v for name, v in built["metrics"].items() if "letters" in name}
    assert metrics["score.base.lm-eval/letters"] == 0.0
    assert metrics["score.adapter.lm-eval/letters.safety"] == 0.6
    assert "score.adapter.lm-eval/letters" not in metrics
    assert not [item for item in built["comparisons"] if "letters" in item["task"]]


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (
            {"score": 15.2, "low": 12.66, "high": 17.9, "metric": "word_perplexity"},
            "15.20 [12.66-17.90]",
        ),
        ({"score": 15.2, "low": None, "high": None, "metric": "word_perplexity"}, "15.20"),
        ({"score": 0.61, "low": None, "high": None, "metric": "accuracy"}, "61"),
        ({"score": 0.61, "low": 0.54, "high": 0.68, "metric": "accuracy"}, "61 [54-68]"),
        ({"score": 0.61, "low": 0.54, "high": 0.68}, "61 [54-68]"),
        (None, "-"),
    ],
)
def test_only_shares_are_percentages(score: dict[str, Any] | None, text: str) -> None:
    assert tables.percent(score) == text


def test_each_of_several_safety_tasks_has_its_over_refusal() -> None:
    scores = {"safety": {"over_refusal": 0.1}, "math": {}, "xstest": {"over_refusal": 0.2}}
    rows = [{"scores": {"safety": scores["safety"]}}, {"scores": scores}]
    assert tables.over_refusal_columns(rows[:1]) == {"safety": "over-refusal"}
    assert tables.over_refusal_columns(rows) == {
        "safety": "over-refusal, safety",
        "xstest": "over-refusal, xstest",
    }


def test_null_scores_are_dashes(workspace: Any) -> None:
    for row in ("lori-d", "adapter"):
        edit(workspace.scores("adapters/nlu"), row, "nlu", **NULL, kinds={})
    edit(workspace.scores("base/base"), "base", "safety", over_refusal=NULL)
    edit(workspace.scores("continual/math"), "continual", "safety", **NULL)
    edit(workspace.scores("continual/math"), "continual", "math", paper_scoring=NULL)
    built = build(workspace)
    rows = {row["model"]: row for row in built["table"]}
    assert rows[OWN]["nlu"] == rows["base"]["over-refusal"] == "-"
    assert rows["safety, then math"]["safety"] == "-"
    assert rows["base"]["nlu"] == "32 [19-49]"
    assert table(built, "forgetting")["safety, then math"] == ["90 [73-98]", "-", "-", "-"]
    assert table(built, "ways")["math, scored as in the paper"][-2] == "-"
    assert "score.adapter.nlu" not in built["metrics"]
    assert None not in built["metrics"].values()
    assert {"score.base.math", "score.merge-concat.math"} <= built["metrics"].keys()
    assert "nlu" not in built["beats_base"]


def test_verdicts_on_safety_stand_in_a_table(workspace: Any) -> None:
    share = {"score": 0.25, "low": 0.1, "high": 0.5, "n": 8}
    none = {"score": None, "low": None, "high": None, "n": 0}
    found = {
        "harmful": dict.fromkeys(VERDICTS, share),
        "harmless": dict.fromkeys(VERDICTS, none),
    }
    edit(workspace.scores("base/base"), "base", "safety", verdicts=found)
    verdicts = table(build(workspace), "verdicts")
    assert list(verdicts) == [f"safety, harmful, {verdict} (8)" for verdict in VERDICTS]
    assert verdicts["safety, harmful, incoherent (8)"] == ["25 [10-50]", *[""] * 7]


def test_other_ways_of_scoring_have_a_line_each(workspace: Any) -> None:
    other = {"score": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    path = workspace.scores("base/base")
    edit(path, "base", "nlu", likelihood=other | {"kinds": {}}, paper=other | {"metric": "x"})
    edit(path, "base", "math", paper_scoring=other)
    ways = table(build(workspace), "ways")
    assert list(ways) == [
        "nlu, by log-likelihood",
        "nlu, paper's protocol",
        "math, scored as in the paper",
        "code, pass@1",
        "code, pass@5",
        "code, pass@10",
    ]
    assert ways["nlu, by log-likelihood"] == ["50 [25-75]", *[""] * 7]
    assert ways["code, pass@10"][1] == "100 [91-100]"


def test_excess_losses_are_shown_where_they_were_measured(workspace: Any) -> None:
    assert build(workspace)["excess"] == {}
    write_json(workspace.metrics / "excess" / "concat.json", {"tasks": [], "excess": {}})
    assert build(workspace)["excess"] == {}
    cell = {"excess": 0.1234, "low": -0.0001, "high": 0.25}
    one = cell | {"low": None, "high": None}  # of a single example
    rows = {"math": cell, "nlu": cell | {"excess": None}, "code": one}
    facts = {"tasks": ["math", "nlu", "code"], "excess": rows}
    write_json(workspace.metrics / "excess" / "linear.json", facts)
    built = build(workspace)
    assert table(built, "excess") == {"linear": ["-", "+0.123 [0.000, +0.250]", "+0.123", ""]}


def test_markdown_has_every_table_and_repeats(workspace: Any) -> None:
    built = build(workspace)
    text = summary.markdown(built)
    for made in built["tables"]:
        assert f"\n## {made['title']}\n\n| {' | '.join(made['columns'])} |\n| --- " in text
    assert "| LoRI-S, each on its own | 78 [62-89]* | 72 [56-85]* |" in text
    again = build(workspace)
    assert summary.markdown(again) == text
    assert json.dumps(again) == json.dumps(built)


def test_small_numbers_read_well() -> None:
    assert [tables.p_value(p) for p in (1.0, 0.0304, 0.001, 0.0009)] == [
        "1.000",
        "0.030",
        "0.001",
        "< 0.001",
    ]
    found = {"difference": -0.0001, "low": -0.02, "high": 0.0196}
    assert tables.difference(found) == "0.0 [-2.0, +2.0]"


def test_each_set_up_of_a_safety_task_has_a_row_and_the_range_is_shown(workspace: Any) -> None:
    over = {"score": 0.1, "low": 0.0, "high": 0.2, "n": 10}
    setup = {"score": 0.25, "low": 0.1, "high": 0.5, "n": 30, "over_refusal": over}
    attack = setup | {"over_refusal": NULL}
    spread = {"low": 0.25, "high": 0.9, "lowest": "hot", "highest": "default", "n": 3}
    changes = {
        "setups": {"hot": setup, "prefill": attack},
        "spread": {"refusal_rate": spread, "over_refusal": spread | {"n": 2}},
    }
    edit(workspace.scores("base/base"), "base", "safety", **changes)
    cells = {label: row[0] for label, row in table(build(workspace), "setups").items()}
    default = cells.pop("safety, refusal-rate, default")
    assert default.endswith("]")
    assert cells.pop("safety, over-refusal, default").endswith("]")
    assert cells == {
        "safety, refusal-rate, hot": "25 [10-50]",
        "safety, refusal-rate, prefill": "25 [10-50]",
        "safety, refusal-rate, range": "25 (hot) to 90 (default)",
        "safety, over-refusal, hot": "10 [0-20]",
        "safety, over-refusal, range": "25 (hot) to 90 (default)",
    }


def test_a_run_whose_tests_have_no_scorer_has_a_summary(workspace: Any) -> None:
    for path in sorted((workspace.metrics / "evaluate").rglob("*.json")):
        write_json(path, {name: {} for name in read_json(path)})
    built = build(workspace)
    assert [row["model"] for row in built["table"]][:2] == ["base", OWN]
    assert (built["comparisons"], built["beats_base"]) == ([], {})
    assert summary.markdown(built).startswith("| model |")
