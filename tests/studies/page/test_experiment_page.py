"""The page, the Markdown and the pictures, as files."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import experiment_rows
import pytest
from pages import Page

from lori_core.core.errors import InputError
from lori_core.core.files.atomic import read_json, write_json
from studies.analysis import specs
from studies.page import markdown, page

LOSSES = ("single-task-losses", "merge-four-losses", "merge-three-losses")


@pytest.fixture(scope="module")
def written(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of everything, and what was said of it."""
    out = tmp_path_factory.mktemp("page") / "experiments"
    return out, page.write(drawn, out)


def some(folder: Path, *names: str) -> Path:
    for name, content in experiment_rows.everything().items():
        if name in names:
            write_json(folder / f"{name}.json", content)
    return folder


def test_everything_is_written(written: tuple[Path, dict[str, Any]]) -> None:
    out, built = written
    pictures = {f"{stem}.{kind}" for stem in (*specs.SPECS, *LOSSES) for kind in ("png", "svg")}
    texts = {f"{name}.md" for name in specs.SPECS}
    others = {"index.html", "evidence.md", "summary.json", "plots"}
    assert {path.name for path in out.iterdir()} == pictures | texts | others
    assert {path.stem for path in (out / "plots").iterdir()} == set(specs.SPECS)
    assert built == read_json(out / "summary.json")
    assert built["experiments"]["continual"]["figures"] == [
        {
            "stem": "continual",
            "title": "Continual learning",
            "png": "continual.png",
            "svg": "continual.svg",
        }
    ]
    assert built["metrics"]["single-task/lora/math/exact_match"] == pytest.approx(0.12166, abs=1e-5)
    verdicts = [claim["verdict"] for claim in built["claims"]]
    assert built["metrics"]["claims/held"] == verdicts.count("held") > 0


def test_the_page_is_one_file_without_network(written: tuple[Path, dict[str, Any]]) -> None:
    out, built = written
    read = Page(out / "index.html")
    assert read.open == []
    inside = [target for target in read.targets if target.startswith("data:image/svg+xml;base64,")]
    assert len(inside) == len(specs.SPECS) + len(LOSSES)
    for target in set(read.targets) - set(inside):
        assert target.startswith("#") or (out / target).is_file(), target
    text = (out / "index.html").read_text(encoding="utf-8")
    anchors = {target[1:] for target in read.targets if target.startswith("#")}
    assert anchors == {*built["experiments"], *(claim["name"] for claim in built["claims"])}
    assert anchors <= set(re.findall(r'id="([^"]+)"', text))
    assert "url(" not in text
    assert "<script" not in text


def test_the_page_says_how_each_was_run_and_what_came_out(
    written: tuple[Path, dict[str, Any]],
) -> None:
    out, built = written
    text = re.sub(r"\s+", " ", (out / "index.html").read_text(encoding="utf-8"))
    for said in (
        f"{len(specs.SPECS)} experiments on SmolLM2-135M-Instruct (135M parameters)",
        "<code>lori experiment granularity --profile evidence</code>",
        "<dt>Seeds</dt><dd>1, 2, 3</dd>",
        "<dt>Training examples</dt><dd>nlu 2,000, math 1,500, code 1,500, safety 1,200</dd>",
        "<dd>math: exact match 200; math: held-out loss 200</dd>",
        "<dt>Machine</dt><dd>2 cores of an Intel Xeon, 24 GB, no GPU</dd>",
        "The paper's Table 22 (Section E.5)",
        "The paper's Figure 4c (Section 3.5",
        "Rule: LoRI-S trains at least 94.5 % fewer values than LoRA (95 % when rounded).",
    ):
        assert said in text, said
    for claim in built["claims"]:
        assert claim["verdict"] in text
    assert "Gaps" not in text


def test_the_first_screen_has_what_was_found(tmp_path: Path) -> None:
    """A told claim is a row with verdict, effect and place; another takes one line."""
    content = experiment_rows.everything()["granularity"]
    write_json(tmp_path / "metrics" / "granularity.json", content)
    structured = experiment_rows.everything()["structured"]
    structured["rows"] = [row for row in structured["rows"] if row["seed"] == 1]
    kept = [row | {"low": 0, "high": 1} for row in structured["rows"] if row["metric"] != "loss"]
    write_json(tmp_path / "metrics" / "structured.json", structured | {"rows": kept})
    built = page.write(tmp_path / "metrics", tmp_path / "out")
    told, untold = built["claims"]
    assert (told["told"], untold["told"]) == (True, False)
    text = (tmp_path / "out" / "evidence.md").read_text(encoding="utf-8")
    assert (
        f"| {told['claim']} | {told['verdict']}: {told['effect']} | {told['losses']}: "
        f"{told['losses_effect']} | [Mask granularity](#mask-granularity) |"
    ) in text
    assert f"- {untold['claim']} {untold['effect']}. [Structured masks](#structured-masks)" in text
    first = text.partition("## What could not be told")[0]
    assert "LoRI is LoRA with a frozen random A: LoRI-D trains all of B" in first
    sizes = "1,200 to 2,000 training examples and 150 to 400 test items, with 1 to 3 seeds."
    assert f"Each task had {sizes}" in first
    assert "In points of a score, above 0 supports the claim" in first
    assert text.count(untold["claim"]) == 2
    line = f"- **{untold['claim']}** ({untold['source']}) Could not be told: {untold['deciding']}\n"
    assert line in text
    assert untold["rule"] not in text
    places = [text.index(f"## {title}") for title in ("What was found", "Pictures", "Mask gran")]
    assert places == sorted(places)
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert untold["rule"] not in html
    assert f"<small>{told['effect']}</small>" in html


def test_markdown_has_the_pages_cells(written: tuple[Path, dict[str, Any]]) -> None:
    out, built = written
    evidence = (out / "evidence.md").read_text(encoding="utf-8")
    html = re.sub(r"</?small>", "", (out / "index.html").read_text(encoding="utf-8"))
    for made in built["experiments"].values():
        assert f"## {made['title']}\n" in evidence
        for table in made["tables"]:
            for row in table["rows"]:
                assert "| " + " | ".join(row) + " |" in evidence
                assert all(f">{cell}</td>" in html for cell in row)
    assert "![Structured masks](structured.png)" in evidence
    assert (out / "granularity.md").read_text(encoding="utf-8").startswith("# Mask granularity\n")
    elsewhere = markdown.evidence(built, "evidence/")
    assert "![Structured masks](evidence/structured.png)" in elsewhere


def test_the_plots_files_are_tables_of_numbers(written: tuple[Path, dict[str, Any]]) -> None:
    out, _ = written
    for path in (out / "plots").iterdir():
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        assert rows
        labels = [row["label"] for row in rows]
        assert len(set(labels)) == len(labels)
        assert all(float(row["value"]) >= 0 for row in rows)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    folder = some(tmp_path / "metrics", "granularity", "property-1", "merge-weight-pareto")
    page.write(folder, tmp_path / "first")
    page.write(folder, tmp_path / "second")
    names = [path for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(names) == 3 * 4 + 3
    for path in names:
        other = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_one_experiment_alone_with_gaps_and_unknown_info(tmp_path: Path) -> None:
    content = experiment_rows.everything()["importance"]
    content["rows"] = [row for row in content["rows"] if row["importance"] != "snip"]
    content["info"] = {"model": "tiny", "steps": 7, "note": None}
    write_json(tmp_path / "metrics" / "importance.json", content)
    built = page.write(tmp_path / "metrics", tmp_path / "out")
    assert built["summary"].startswith(
        "1 experiment on tiny. By scores or measurements, of 1 claim 0 held"
    )
    made = built["experiments"]["importance"]
    assert made["gaps"] == ["Not run: importance SNIP."]
    assert made["info"][:3] == [["Base model", "tiny"], ["Steps", "7"], ["Seeds", "1, 2, 3"]]
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<li>Not run: importance SNIP.</li>" in text
    assert "- Not run: importance SNIP." in (tmp_path / "out" / "importance.md").read_text()


def test_nothing_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    content = experiment_rows.everything()["structured"]
    content["rows"] = [row | {"value": None} for row in content["rows"]]
    write_json(tmp_path / "metrics" / "structured.json", content)
    built = page.write(tmp_path / "metrics", tmp_path / "out")
    assert built["experiments"]["structured"]["figures"] == []
    assert not (tmp_path / "out" / "structured.png").exists()
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "There is no figure, because none of its numbers was measured." in text


def test_no_experiment_leaves_the_last_page(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("before")
    with pytest.raises(InputError, match="no experiment has run"):
        page.write(tmp_path / "metrics", tmp_path / "out")
    assert (tmp_path / "out" / "index.html").read_text() == "before"


@pytest.mark.parametrize(
    ("stands", "line"),
    [
        ([None], "No claim was decided"),
        ([True, True], "All of these verdicts remain"),
        ([False, None], "None of these verdicts remains"),
        ([True, False], "After Holm's correction for all claims by the same measure, 1 of"),
    ],
)
def test_the_page_says_which_verdicts_stand(stands: list[bool | None], line: str) -> None:
    judged = [
        {"claim": f"claim {place}", "stands": stand, "losses_stand": None}
        for place, stand in enumerate(stands)
    ]
    assert page._holm(judged).startswith(line)
    assert ("“claim 0”" in page._holm(judged)) == (stands == [True, False])
