"""Multiple choice by log-likelihood, beside generated answers: claims, tables, page and plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import experiment_rows
import pytest

from lori_core.core.files.atomic import write_json
from studies.analysis import claims, tables
from studies.analysis.paired.differences import contrast, likelihood_cells, score_cells
from studies.analysis.rows import Experiment, read_folder
from studies.analysis.verdicts import HELD
from studies.page import page
from studies.power.plan import Settings, plan

NAMES = ("single-task", "merge-four", "continual", "importance", "sparsity-map")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of some experiments whose choices were also scored by log-likelihood."""
    path = tmp_path_factory.mktemp("likelihood")
    for name, content in experiment_rows.everything(exact=True).items():
        if name in NAMES:
            write_json(path / f"{name}.json", experiment_rows.with_likelihood(content))
    return path


@pytest.fixture(scope="module")
def experiments(folder: Path) -> dict[str, Experiment]:
    return read_folder(folder)


def test_claims_on_choices_are_judged_by_log_likelihood(
    experiments: dict[str, Experiment],
) -> None:
    judged = {claim["name"]: claim for claim in claims.judged(experiments)}
    told = judged["d_above_s"]
    assert (told["likelihood"], told["likelihood_stands"]) == (HELD, True)
    assert told["likelihood_deciding"].startswith("LoRI-D against LoRI-S, nlu: +")
    assert told["likelihood_p"] < 0.05
    assert told["deciding"].startswith("LoRI-D against LoRI-S, mean over nlu, math, code, safety:")
    measured = {name for name, claim in judged.items() if claim["likelihood"]}
    assert {"merged_best", "d_learns_more", "magnitude_best"} <= measured
    others = {"code", "merged_code", "lora_forgets", "fewer_parameters", "upper_keeps_more"}
    assert not measured & others
    for name in judged.keys() - measured:
        assert judged[name]["likelihood_effect"] == ""
        assert judged[name]["likelihood_stands"] is None


def test_rows_of_older_versions_are_not_judged_by_it(exact: dict[str, Experiment]) -> None:
    for claim in claims.judged(exact):
        assert claim["likelihood"] is None
        assert claim["likelihood_because"] == []
        assert claim["likelihood_p"] == 1.0


def test_a_task_still_has_one_main_score(experiments: dict[str, Experiment]) -> None:
    single = experiments["single-task"]
    assert dict(single.main_measures())["nlu"] == "accuracy"
    assert [cell["metric"] for cell in score_cells(single, ["nlu"])] == ["accuracy"]
    assert likelihood_cells(single) == [{"metric": "likelihood_accuracy", "task": "nlu"}]
    assert likelihood_cells(single, ["code"]) == []


def test_differences_by_log_likelihood_are_paired_by_item(build: Any) -> None:
    """The two methods answer the same items; only the third item differs."""
    rows = [
        {
            "metric": "likelihood_accuracy", "task": "nlu", "seed": seed, "method": method,
            "value": text.count("1") / 8, "low": 0.0, "high": 1.0, "n": 8,
            "items": text, "item_set": "same",
        }
        for seed in (1, 2, 3)
        for method, text in (("lori-d", "11110000"), ("lora", "11010000"))
    ]  # fmt: skip
    single = build("single-task", rows)
    difference = contrast(
        single, likelihood_cells(single), [(1, {"method": "lori-d"}), (-1, {"method": "lora"})]
    )
    assert difference is not None
    assert (difference.value, difference.items, difference.unit) == (12.5, 8, "points")


def test_the_tables_show_it(experiments: dict[str, Experiment]) -> None:
    _, others, _ = tables.build(experiments["single-task"])
    assert others["title"].startswith("Multiple choice by log-likelihood, higher is better; over")
    assert "nlu: accuracy by log-likelihood, %" in others["columns"]
    (safety,) = tables.build(experiments["continual"])
    assert safety["columns"][-3:] == [
        "learned task: score, %",
        "learned task: by log-likelihood, %",
        "learned task: loss, nats",
    ]
    learned = {row[1]: row for row in safety["rows"]}
    assert learned["nlu"][-2] != "-"
    assert learned["math"][-2] == "-"


def test_the_page_has_a_column_for_it_only_where_it_was_measured(
    folder: Path, tmp_path: Path
) -> None:
    built = page.write(folder, tmp_path / "with")
    assert "By log-likelihood of choices, " in built["summary"]
    text = (tmp_path / "with" / "evidence.md").read_text(encoding="utf-8")
    heading = (
        "| claim | by scores or measurements | by log-likelihood of choices "
        "| by held-out losses | where |"
    )
    assert heading in text
    assert "  - By log-likelihood of choices: held.\n" in text
    html = (tmp_path / "with" / "index.html").read_text(encoding="utf-8")
    assert "<th>by log-likelihood of choices</th><th>by held-out losses</th>" in html
    older = experiment_rows.everything()["structured"]
    write_json(tmp_path / "older" / "structured.json", older)
    page.write(tmp_path / "older", tmp_path / "without")
    for name in ("evidence.md", "index.html"):
        shown = (tmp_path / "without" / name).read_text(encoding="utf-8")
        assert "log-likelihood of choices" not in shown


def test_the_plan_has_a_line_for_it_where_a_pilot_measured_it(
    experiments: dict[str, Experiment], exact: dict[str, Experiment]
) -> None:
    lines = plan(experiments, Settings(), names=["single-task"])
    assert {line.measure for line in lines} == {"scores", "likelihood", "losses"}
    older = plan(exact, Settings(), names=["single-task"])
    assert {line.measure for line in older} == {"scores", "losses"}
