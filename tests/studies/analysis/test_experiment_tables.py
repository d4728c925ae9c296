"""The tables' cells, the gaps in words, and the points for tracking and plots."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from studies.analysis import cells, paper, tables
from studies.analysis.rows import Estimate, Experiment
from studies.page import gaps, markdown, plots


def without(experiment: Experiment, **wanted: Any) -> Experiment:
    """Return an experiment without the rows that have all these values."""
    rows = tuple(
        row
        for row in experiment.rows
        if any({**row.factors, **vars(row)}[key] != value for key, value in wanted.items())
    )
    return replace(experiment, rows=rows)


def test_single_task_stands_beside_the_paper(exact: dict[str, Experiment]) -> None:
    scores, others, costs = tables.build(exact["single-task"])
    assert scores["columns"][:3] == ["method", "nlu: accuracy, %", "paper"]
    lora = next(row for row in scores["rows"] if row[0] == "LoRA")
    assert lora[1::2] == [
        "52.0 [51.5-52.5]",
        "14.0 [13.7-14.3]",
        "20.0 [19.6-20.4]",
        "88.0 [87.7-88.3]",
    ]
    assert lora[2::2] == ["87.1", "64.4", "34.7", "91.6"]
    assert next(row for row in scores["rows"] if row[0] == "Base")[2::2] == ["-"] * 4
    assert others["rows"][0][0] == "Base"
    assert others["columns"][-2:] == ["safety: over-refusal, %", "safety: held-out loss, nats"]
    assert costs["rows"][-1] == [
        "LoRI-S",
        "497,664 (0.37%)",
        "4.4M (0.05%)",
        "8.0",
        "2.0",
        *["5e-3"] * 4,
    ]


def test_merges_stand_in_the_papers_order_beside_it(exact: dict[str, Experiment]) -> None:
    scores = tables.build(exact["merge-four"])[0]
    assert [row[:4] for row in scores["rows"][:5]] == [
        ["Single-Task", "LoRA", "-", "-"],
        ["Single-Task", "LoRI-D", "-", "-"],
        ["Single-Task", "LoRI-S", "-", "-"],
        ["Concat", "LoRA", "0.4", "-"],
        ["Linear", "LoRA", "0.4", "-"],
    ]
    assert scores["rows"][5][:4] == ["Magnitude", "LoRA", "0.4", "0.3"]
    assert scores["rows"][3][5::2] == ["85.0", "57.8", "13.0", "84.4"]
    assert scores["rows"][-1][5::2] == ["73.4", "27.2", "34.8", "75.3"]
    three = tables.build(exact["merge-three"])[0]
    assert three["rows"][3][5::2] == ["86.4", "54.5", "13.0"]


def test_continual_has_safety_and_the_learned_task(exact: dict[str, Experiment]) -> None:
    (made,) = tables.build(exact["continual"])
    assert made["columns"] == [
        "method",
        "learned",
        "safety: refusal rate, %",
        "safety: over-refusal, %",
        "safety: held-out loss, nats",
        "learned task: score, %",
        "learned task: loss, nats",
    ]
    assert made["rows"][0][:2] == ["LoRA", "(safety alone)"]
    assert made["rows"][0][-2:] == ["", ""]
    assert made["rows"][1][:3] == ["LoRA", "nlu", "59.7 [59.2-60.2]"]
    assert made["rows"][1][-2:] == ["52.0 [51.5-52.5]", "0.90 [0.87-0.93]"]


def test_sweeps_have_a_row_for_each_point(exact: dict[str, Experiment]) -> None:
    (steps,) = tables.build(exact["calibration-steps"])
    assert [row[0] for row in steps["rows"]] == ["0 (random mask)", "1", "8", "32", "128"]
    weights, losses = tables.build(exact["merge-weights"])
    assert [table["title"] for table in (weights, losses)] == [
        "Merging weights: scores",
        "Merging weights: held-out losses",
    ]
    assert losses["columns"][2:] == [
        f"{task}: held-out loss, nats" for task in ("nlu", "math", "code", "safety")
    ]
    assert weights["columns"][:2] == ["adaptation", "weight"]
    assert len(weights["rows"]) == 12
    (structures,) = tables.build(exact["structured"])
    assert [row[0] for row in structures["rows"]] == ["unstructured", "rows", "blocks", "groups"]
    (cosines,) = tables.build(exact["property-1"])
    assert cosines["rows"][0] == [
        "drawn",
        "8",
        "128",
        "0.0375 [0.0375-0.0375]",
        "0.112 [0.112-0.112]",
        "0.934 [0.934-0.934]",
    ]
    assert len(cosines["rows"]) == 12 + 6


def test_the_map_is_summed_up_by_projection_and_depth(exact: dict[str, Experiment]) -> None:
    (made,) = tables.build(exact["sparsity-map"])
    assert made["columns"] == [
        "matrices",
        *(f"{task}: kept, %" for task in ("nlu", "math", "code", "safety")),
    ]
    assert [row[0] for row in made["rows"][-4:]] == [
        "attention",
        "feed-forward",
        "lower layers (15)",
        "upper layers (15)",
    ]
    assert made["rows"][-4][1] == "7.0 [7.0-7.0]"
    assert made["rows"][-3][1] == "13.0 [13.0-13.0]"


def test_the_grid_has_a_table_for_each_measure(exact: dict[str, Experiment]) -> None:
    scores, losses = tables.build(exact["sparsity-by-learning-rate"])
    assert scores["columns"] == [
        "sparsity",
        *(f"learning rate {rate}" for rate in ("0.0001", "0.0005", "0.001", "0.005")),
    ]
    assert [row[0] for row in losses["rows"]] == ["0", "0.5", "0.9", "0.95"]


@pytest.mark.parametrize(
    ("metric", "found", "text"),
    [
        ("accuracy", Estimate(0.612, 0.581, 0.643, 3, 300), "61.2 [58.1-64.3]"),
        ("accuracy", Estimate(0.612, None, None, 1, 0), "61.2"),
        ("accuracy", None, "-"),
        ("loss", Estimate(0.1, -0.05, 0.25, 3, 0), "0.10 [-0.05, 0.25]"),
        ("trainable_parameters", Estimate(4976640, None, None, 1, 0), "4,976,640"),
        ("something_new", Estimate(0.01234, None, None, 1, 0), "0.0123"),
    ],
)
def test_cells(metric: str, found: Estimate | None, text: str) -> None:
    assert cells.estimate(metric, found) == text


def test_gaps_are_said_in_words(exact: dict[str, Experiment]) -> None:
    for experiment in exact.values():
        assert gaps.of(experiment) == []
        assert gaps.known(experiment)
    single = without(exact["single-task"], method="vera")
    single = without(single, method="dora", task="code", seed=2)
    assert gaps.of(single) == [
        "Not run: method VeRA.",
        "No number at method DoRA (seed 2): code: pass@1, code: held-out loss.",
    ]
    grid = without(exact["sparsity-by-learning-rate"], sparsity=0.9, learning_rate=1e-3)
    assert gaps.of(grid) == ["No number at sparsity 0.9, learning rate 0.001: all measures."]
    cosines = without(exact["property-1"], d_in=128, rank=8, seed=1, metric="mean_abs_cosine")
    assert gaps.of(cosines) == ["No number at d_in 128, rank 8, B drawn (seed 1): mean |cos|."]
    kept = without(exact["sparsity-map"], layer=3, projection="q_proj", seed=2)
    assert gaps.of(kept) == ["No number at layer 3, projection q_proj (seed 2): all measures."]
    merged = without(exact["merge-four"], merge="ties")
    assert gaps.of(merged) == []
    null = exact["granularity"]
    rows = (replace(null.rows[0], value=None), *null.rows[1:])
    assert gaps.of(replace(null, rows=rows)) == ["1 measurement came out without a value."]


def test_more_gaps_than_one_reads_are_counted(exact: dict[str, Experiment]) -> None:
    pareto = exact["merge-weight-pareto"]
    rows = tuple(r for r in pareto.rows if r.seed == 1 or r.factors["task_weight"] == 0.2)
    lines = gaps.of(replace(pareto, rows=rows))
    assert len(lines) == gaps.MOST + 1
    assert lines[-1] == "And at 2 more points."


def test_points_for_tracking(exact: dict[str, Experiment]) -> None:
    found = plots.metrics(exact["merge-four"])
    assert found["merge-four/lora/concat/0.4/math/exact_match"] == pytest.approx(0.08985, abs=1e-4)
    assert "merge-four/lori-d/single-task/nlu/accuracy" in found
    assert "merge-four/lori-s/ties/0.3/0.7/safety/over_refusal" in found
    kept = plots.metrics(exact["sparsity-map"])
    assert len(kept) == 4 * 7
    assert kept["sparsity-map/0.9/q_proj/nlu/kept"] == pytest.approx(0.04)
    for experiment in exact.values():
        values = plots.metrics(experiment)
        assert values
        assert json.loads(json.dumps(values)) == values


def test_csv_for_plots(exact: dict[str, Experiment]) -> None:
    lines = plots.scores(exact["granularity"]).splitlines()
    assert lines[0] == "label,task,metric,value,low,high,seeds,n"
    assert lines[1] == '"math: exact match, %: model",math,exact_match,14,13.6613,14.3439,3,120000'
    assert len(lines) == 6
    cosines = plots.scores(exact["property-1"]).splitlines()
    assert cosines[1] == (
        '"mean |cos|: d_in 128, rank 8, drawn",,mean_abs_cosine,0.0375,0.0375,0.0375,3,0'
    )


def test_the_section_of_dvc_yaml_names_what_the_report_writes() -> None:
    assert plots.section({"granularity": "report"}) == [
        {
            "granularity": {
                "title": "Mask granularity",
                "template": "bar_horizontal",
                "x": "value",
                "y": {"report/plots/granularity.csv": "label"},
            }
        },
        "report/granularity.png",
    ]


def test_bars_in_a_cell_do_not_break_markdown() -> None:
    made = {"columns": ["mean |cos|"], "rows": [["a|b"]]}
    assert markdown._table(made) == ["| mean \\|cos\\| |", "| --- |", "| a\\|b |"]


def test_the_papers_numbers_stand_only_where_it_has_them(exact: dict[str, Experiment]) -> None:
    assert paper.merged(4, "single-task", "lora", "nlu") is None
    scores = tables.build(exact["merge-four"])[0]
    assert scores["rows"][0][5::2] == ["-"] * 4
