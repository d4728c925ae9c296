"""Models side by side."""

from pathlib import Path

import pytest
from scipy import stats

from lori_core.core.errors import DataError
from lori_core.core.files.atomic import read_json, write_jsonl
from lori_core.evaluation.scoring.scorers import ANSWERED, REFUSED
from lori_core.report import side_by_side


def answers(path: Path, right: int, n: int = 20, first: int = 0) -> Path:
    rows = [
        {
            "id": str(first + i),
            "prompt": f"question {i}",
            "answer": "7",
            "parsed": "7",
            "output": f"out {i}",
            "correct": i < right,
        }
        for i in range(n)
    ]
    write_jsonl(path, rows)
    return path


def refusals(path: Path, refused: int, timid: int) -> Path:
    rows = [
        {
            "id": f"{answer}{i}",
            "prompt": "p",
            "answer": answer,
            "output": "o",
            "parsed": REFUSED if i < limit else ANSWERED,
            "correct": (i < limit) == (answer == "refuse"),
        }
        for answer, limit in (("refuse", refused), ("comply", timid))
        for i in range(10)
    ]
    write_jsonl(path, rows)
    return path


def test_scores_intervals_and_tests_are_by_task_and_model(tmp_path: Path) -> None:
    models = {
        "a": {"math": answers(tmp_path / "a.jsonl", 5), "safety": refusals(tmp_path / "as", 8, 1)},
        "b": {"math": answers(tmp_path / "b.jsonl", 15), "safety": refusals(tmp_path / "bs", 8, 6)},
    }
    built = side_by_side.build(models)
    assert list(built["scores"]) == ["math", "safety, refusals", "safety, over-refusals"]
    ends = stats.binomtest(15, 20).proportion_ci(0.95, method="exact")
    score = built["scores"]["math"]["b"]
    assert (score["score"], score["n"]) == (0.75, 20)
    assert (score["low"], score["high"]) == pytest.approx(tuple(ends))
    found = built["differences"]["math"]["b"]
    assert found["difference"] == 0.5
    assert found["p"] == pytest.approx(stats.binomtest(10, 10).pvalue)
    assert built["differences"]["safety, refusals"]["b"]["difference"] == 0
    assert built["differences"]["safety, over-refusals"]["b"]["difference"] == 0.5
    lines = side_by_side.text(built)
    assert lines[2].split() == ["task", "a", "b"]
    assert lines[3].endswith("25 [9-49]   75 [51-91]; Δ +50.0 [+17.7, +72.8]*")


def test_the_page_shows_the_table_and_what_flipped(tmp_path: Path) -> None:
    models = {
        "a<b": {"math": answers(tmp_path / "a.jsonl", 5)},
        "c": {"math": answers(tmp_path / "b.jsonl", 6)},
    }
    side_by_side.write(side_by_side.build(models), tmp_path / "out", ["a<b: of a run"])
    page = (tmp_path / "out/index.html").read_text()
    assert "a&lt;b: of a run" in page
    assert "question 5" in page
    assert "out 5" in page
    assert read_json(tmp_path / "out/compare.json")["models"] == ["a<b", "c"]
    assert "| math (20) |" in (tmp_path / "out/compare.md").read_text()


def test_a_task_that_one_lacks_is_left_out_there(tmp_path: Path) -> None:
    built = side_by_side.build(
        {
            "a": {"math": answers(tmp_path / "a.jsonl", 5)},
            "b": {"code": answers(tmp_path / "b.jsonl", 6)},
        }
    )
    assert built["rows"][0][1:] == ["25 [9-49]", "-"]
    assert built["rows"][1][1:] == ["-", "30 [12-54]"]


def test_the_number_of_items_is_shown_where_models_have_others(tmp_path: Path) -> None:
    built = side_by_side.build(
        {
            "a": {"math": answers(tmp_path / "a.jsonl", 10)},
            "b": {"math": answers(tmp_path / "b.jsonl", 10, n=14, first=8)},
            "c": {"math": answers(tmp_path / "c.jsonl", 10)},
        }
    )
    label, first, second, third = built["rows"][0]
    assert (label, first) == ("math (20)", "50 [27-73]")
    assert second == "71 [42-92] of 14; Δ +66.7 [+16.7, +90.1]* on 12"
    assert third.startswith("50 [27-73]; Δ ")
    assert third.endswith("]")


def test_models_without_a_common_item_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are in only one of them"):
        side_by_side.build(
            {
                "a": {"math": answers(tmp_path / "a.jsonl", 5)},
                "b": {"math": answers(tmp_path / "b.jsonl", 5, first=100)},
            }
        )
