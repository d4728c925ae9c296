"""The paper's numbers: some by value, all by what they must agree on."""

from __future__ import annotations

import pytest

from studies.analysis import paper
from studies.analysis.specs import SPECS

BENCHMARKS = ("BoolQ", "PIQA", "SIQA", "ARC-c", "ARC-e", "OBQA", "HellaS", "WinoG")


@pytest.mark.parametrize(
    ("number", "column", "wanted", "value"),
    [
        ("1", "Avg.", {"Model": "Mistral-7B", "Method": "DoRA"}, 87.5),
        ("2", "Pass@10", {"Model": "Llama-3-8B", "Method": "LoRI-D"}, 63.2),
        ("3", "Pass@1", {"Merging": "Concat", "Adaptation": "LoRA"}, 13.0),
        ("3", "Pass@1", {"Merging": "Concat", "Adaptation": "LoRI-D"}, 40.5),
        ("11", "WinoG", {"Method": "VeRA"}, 56.9),
        ("12", "HEx-PHI", {"Method": "LoRA+"}, 98.8),
        ("13", "ARC-e", {"Model": "Llama-3-8B", "Method": "LoRI-S"}, 93.8),
        ("14", "Pass@1", {"Model": "Llama-3-8B", "Method": "LoRI-S"}, 44.1),
        ("15", "NLU", {"Merging": "TIES"}, 31.3),
        ("16", "Avg.", {"Merging": "Linear", "Adaptation": "LoRI-S"}, 79.1),
        ("17", "BoolQ", {"Merging": "TIES"}, 18.4),
        ("18", "Pass@1", {"Merging": "Linear", "Adaptation": "LoRA"}, 8.8),
        ("19", "BoolQ", {"Merging": "Linear", "Adaptation": "LoRI-S"}, 61.5),
        ("20", "GSM8K", {"Merging": "DARE", "Adaptation": "LoRI-S"}, 27.2),
        ("21", "HEx-PHI", {"Merging": "TIES", "Adaptation": "LoRI-D"}, 68.4),
        ("22", "Pass@10", {"Merging": "DARE", "Adaptation": "LoRI-S"}, 53.4),
    ],
)
def test_numbers_as_printed(number: str, column: str, wanted: dict[str, str], value: float) -> None:
    assert paper.tables()[number].value(column, **wanted) == value


def test_every_table_is_whole() -> None:
    counts = {number: len(table.rows) for number, table in paper.tables().items()}
    ten = dict.fromkeys(("1", "2", "3", *map(str, range(13, 23))), 10)
    assert counts == ten | {"11": 12, "12": 12}
    for table in paper.tables().values():
        for row in table.rows:
            assert len(row) == len(table.columns)
            scores = [cell for cell in row if isinstance(cell, float)]
            assert len(scores) >= 5
            assert all(8 <= score <= 100 for score in scores)


@pytest.mark.parametrize("number", ["1", "11", "13", "16", "17", "19"])
def test_the_printed_mean_of_the_nlu_benchmarks_is_theirs(number: str) -> None:
    table = paper.tables()[number]
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        mean = sum(float(cells[name]) for name in BENCHMARKS) / len(BENCHMARKS)
        assert mean == pytest.approx(float(cells["Avg."]), abs=0.071)


def test_tables_that_repeat_a_number_agree() -> None:
    tables = paper.tables()
    for merge in ("Magnitude", "TIES", "DARE"):
        for first, second in (("3", "20"), ("15", "21"), ("18", "22")):
            for column in ("NLU", "GSM8K", "Pass@1", "Pass@5", "Pass@10", "HEx-PHI"):
                wanted = {"Merging": merge, "Adaptation": "LoRA"}
                assert tables[first].value(column, **wanted) == tables[second].value(
                    column, **wanted
                )


def test_what_the_text_says_of_the_tables() -> None:
    best = {m: paper.tables()["12"].value("Pass@10", Method=m) for m in ("LoRA", "LoRI-D")}
    assert best["LoRI-D"] / best["LoRA"] - 1 == pytest.approx(0.244, abs=5e-4)
    fall = [
        paper.merged(4, "single-task", "lori-d", task) - paper.merged(4, "concat", "lori-d", task)
        for task in ("nlu", "math", "code", "safety")
    ]
    assert sum(fall) / 4 == pytest.approx(5.1)


def test_numbers_are_found_by_our_names() -> None:
    assert paper.single_task("lora", "math") == 64.4
    assert paper.single_task("full", "nlu") == 83.1
    assert paper.single_task("lori-s", "openbookqa") == 88.4
    assert paper.single_task("base", "math") is None
    assert paper.parameters("lora-plus") == "84M (1.03%)"
    assert paper.parameters("base") == ""
    assert paper.merged(4, "ties", "lori-s", "safety") == 77.8
    assert paper.merged(4, "concat", "lori-d", "arc_challenge") == 81.0
    assert paper.merged(3, "dare_linear", "lori-d", "code") == 33.8
    assert paper.merged(3, "concat", "lora", "safety") is None
    assert paper.merged(3, "concat", "lora", "winogrande") == 86.8


def test_experiments_name_tables_and_figures_that_there_are() -> None:
    named = [(spec.tables, spec.figures) for spec in SPECS.values()]
    assert sorted({n for tables, _ in named for n in tables}, key=int) == sorted(
        paper.tables(), key=int
    )
    assert {n for _, figures in named for n in figures} == set(paper.figures())
    assert all(figure.says and figure.section for figure in paper.figures().values())
