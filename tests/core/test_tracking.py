import json
from pathlib import Path

import pytest

from lori_core.core import tracking
from lori_core.core.errors import InputError
from lori_core.core.tracking import FileTracker, stage_tracker


def test_rows_are_whole_lines_in_order(tmp_path: Path) -> None:
    tracker = FileTracker(tmp_path / "deep" / "rows.jsonl")
    tracker.start("train@math")
    tracker.params({"lori": {"rank": 4}})
    tracker.metrics({"loss": 1.5}, step=3)
    tracker.metrics({"score": 0.5})
    tracker.tags({"lori.key": "abc"})
    tracker.dataset("math/train", "d" * 64, "data/math/train.jsonl", 7)
    tracker.artifact(Path("artifacts/math"))
    tracker.error("bad", 2)
    tracker.end()
    rows = [json.loads(line) for line in tracker.path.read_text().splitlines()]
    kinds = ["start", "params", "metrics", "metrics", "tags", "dataset", "artifact", "error", "end"]
    assert [row["type"] for row in rows] == kinds
    assert rows[0]["stage"] == "train@math"
    assert {"host", "user", "python", "torch"} <= rows[0]["where"].keys()
    assert (rows[2]["values"], rows[2]["step"], rows[3]["step"]) == ({"loss": 1.5}, 3, None)
    assert rows[7]["exit_code"] == 2
    assert all(row["time"] > 0 for row in rows)


def test_a_stage_writes_where_it_is_told_or_beside_the_workspaces_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORI_ROWS", raising=False)
    assert stage_tracker("train@math").path.parent == Path(".lori/rows/train@math")
    monkeypatch.setenv("LORI_ROWS", str(tmp_path / "here.jsonl"))
    assert stage_tracker("train@math").path == tmp_path / "here.jsonl"


def test_what_was_reported_of_a_refused_stage_can_be_taken_back(tmp_path: Path) -> None:
    (tmp_path / ".lori").mkdir()
    tracker = FileTracker(tmp_path / ".lori" / "rows" / "train@math" / "1.jsonl")
    assert list(tmp_path.rglob("*")) == [tmp_path / ".lori"]
    tracker.start("train@math")
    assert tracker.path.is_file()
    tracker.forget()
    assert list(tmp_path.rglob("*")) == [tmp_path / ".lori"]


@pytest.mark.parametrize("name", ["", "..", "../x", "train@../x", "a/b", "a@b@c", "x" * 121, "a\n"])
def test_a_name_that_is_no_stage_makes_no_file(name: str) -> None:
    with pytest.raises(InputError, match="is no stage"):
        stage_tracker(name)


def test_a_clock_that_is_set_back_makes_no_row_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([4e9, 4e9 - 3600, 4e9 + 1])
    monkeypatch.setattr(tracking.time, "time", lambda: next(clock))
    monkeypatch.setattr(tracking, "_latest", 0.0)
    assert [tracking.now() for _ in range(3)] == [4e9, 4e9, 4e9 + 1]
