"""`lori sources`, `profiles`, `methods`, `doctor`, `plan`, `report --open`: tables and JSON."""

from __future__ import annotations

import json
import shutil
import webbrowser
from pathlib import Path
from typing import Any

import pytest

from lori_cli import main, pipeline
from lori_cli.printing import tables
from lori_core.core.errors import LoriError

ROOT = Path(__file__).parents[2]
ROWS = [{"name": "a", "count": 1200, "of": ["x", "y"]}, {"name": "b [1]", "count": 7, "of": []}]
COLUMNS = {"name": "name", "count": "count", "of": "of"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the smoke profile as params.yaml."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_row_of_a_pipe_is_one_line_and_markup_is_text() -> None:
    assert tables.lines(ROWS, COLUMNS) == [
        "name    count   of",
        "────────────────────",
        "a       1,200   x, y",
        "b [1]       7",
    ]


def test_json_has_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(ROWS, as_json=True, columns={"name": "name"})
    assert json.loads(capsys.readouterr().out) == ROWS


def test_profiles(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    names = capsys.readouterr().out.split()
    assert main(["profiles", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == names
    assert rows["smoke"] == {
        "name": "smoke",
        "model": "random:llama",
        "tasks": ["nlu", "math", "code", "safety"],
        "about": "For tests of the pipeline",
    }


def test_sources(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "purpose", "scorer", "where", "splits", "needs", "license", "gated"} <= set(
        rows[0]
    )
    assert main(["sources"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["source", "scorer", "splits"]
    assert [line.split()[0] for line in lines[2:]] == [row["name"] for row in rows]


def test_methods(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert set(rows[0]) == {
        "method",
        "trained_parameters",
        "share_of_base",
        "state_bytes",
        "result_bytes",
        "about",
    }
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("random:llama: ")
    assert [line.split()[0] for line in lines[3:]] == [row["method"] for row in rows]


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.doctor import checks
    from flows.doctor.finding import Finding

    findings = [Finding("disk", True, "9 GB free"), Finding("gpu", False, "none", "add one")]
    monkeypatch.setattr(checks, "examine", lambda folder: iter(findings))
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"name": "disk", "ok": True, "text": "9 GB free", "todo": ""},
        {"name": "gpu", "ok": False, "text": "none", "todo": "add one"},
    ]


def test_a_report_is_opened_in_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    pipeline._open(tmp_path / "index.html")
    assert opened == [(tmp_path / "index.html").as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    with pytest.raises(LoriError, match="no browser was found"):
        pipeline._open(tmp_path / "index.html")
