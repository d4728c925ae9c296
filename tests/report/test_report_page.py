"""The page, its pictures and what the terminal shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from pages import Page

from lori_core.core.files.atomic import read_json, write_json
from lori_core.report import figures, page, summary

STEMS = ("scores", "sparsity", "overlap", "interference")


def write(workspace: Any, name: str) -> Path:
    folder: Path = workspace.report / name
    page.write(workspace.params, workspace.metrics, workspace.evaluations, folder)
    return folder


def add_excess(workspace: Any) -> None:
    cell = {"excess": 0.2, "low": 0.1, "high": 0.3}
    facts = {"tasks": ["math"], "excess": {"math": cell, "nlu": cell | {"excess": -0.1}}}
    write_json(workspace.metrics / "excess" / "concat.json", facts)


def test_the_same_inputs_give_the_same_bytes_and_no_link_leaves_the_folder(workspace: Any) -> None:
    add_excess(workspace)
    first, second = write(workspace, "first"), write(workspace, "second")
    names = {path.name for path in first.iterdir()}
    stems = (*STEMS, "excess")
    drawn = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert names == drawn | {"index.html", "summary.md", "summary.json"}
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    read = Page(first / "index.html")
    assert read.open == []
    assert read.targets == [f"{stem}.png" for stem in stems]
    text = (first / "index.html").read_text(encoding="utf-8")
    for title in ("Forgetting: safety before and after", "By kind of example", "78 [62-89]*"):
        assert title in text


def test_null_scores_are_drawn_and_shown(
    workspace: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    null = {"score": None, "low": None, "high": None, "n": 0}
    for group in ("base/base", "adapters/nlu"):
        scores = read_json(workspace.scores(group))
        for tasks in scores.values():
            tasks["nlu"] |= null
        write_json(workspace.scores(group), scores)
    folder = write(workspace, "nulls")
    assert {path.stem for path in folder.glob("*.png")} == set(STEMS)
    summary.show(folder)
    shown = capsys.readouterr().out
    assert re.search(r"base +│ +- │ +22 \[11-38\] │", shown)
    assert "Forgetting: safety before and after" in shown
    assert "By kind of example" not in shown


def test_the_figure_of_interference_names_the_tasks_own_method() -> None:
    pairs = {"code+math": {"mean_abs_cosine": 0.1}}
    summary = {"tasks": ["code", "math"], "own": "LoRA"}
    figure = figures.interference(summary | {"interference": {"lori-d": {}, "adapter": pairs}})
    assert [axis.get_title() for axis in figure.axes[:2]] == ["LoRI-D", "LoRA"]


def test_bars_have_intervals_and_no_two_models_look_alike() -> None:
    score = {"score": 0.5, "low": 0.25, "high": 1.0, "n": 4}
    names = [f"model {number}" for number in range(2 * len(figures.COLOURS))]
    rows = [{"model": name, "scores": {"math": score}} for name in names]
    figure = figures.scores({"tasks": ["math"], "rows": rows})
    axis = figure.axes[0]
    bars = [bar for bar in axis.containers if hasattr(bar, "patches")]
    looks = {(bar.patches[0].get_facecolor(), bar.patches[0].get_hatch()) for bar in bars}
    assert len(looks) == len(bars) == len(names)
    (lines,) = bars[0].errorbar.lines[2]
    assert [y for _, y in lines.get_segments()[0]] == [25, 100]
    plt.close(figure)


def test_the_page_leads_from_each_merge_to_the_data(workspace: Any, tmp_path: Path) -> None:
    for stage, item, said in [
        ("merge", next(iter(workspace.params.merge)), {"content_key": "m" * 64}),
        ("mask", "math", {"content_key": "k" * 64, "sparsity": "0.9", "scope": "model"}),
    ]:
        path = workspace.metrics / stage / f"{item}.json"
        before = read_json(path) if path.is_file() else {}
        write_json(path, before | said)
    sources = [{"kind": "hub", "name": "org/set", "revision": "c" * 40, "license": "MIT"}]
    entry = {"sources": sources, "splits": {"train": {"count": 7}}}
    write_json(workspace.metrics.parent / "data/manifest.json", {"tasks": {"math": entry}})
    page.write(workspace.params, workspace.metrics, workspace.evaluations, tmp_path / "out")
    html = (tmp_path / "out/index.html").read_text()
    tree = html[html.index("Lineage</h2>") :]
    assert "<code>mmmmmmmmmmmm</code>" in tree
    assert "<code>kkkkkkkkkkkk</code>" in tree
    assert "hub org/set at cccccccccccc, licence MIT" in tree
    assert "7 rows" in tree
    below = tree[tree.index("artifacts/math/adapter") :]
    order = ["artifacts/math/adapter", "mask.safetensors", "calibrated", "data/math"]
    places = [below.index(name) for name in order]
    assert places == sorted(places)
