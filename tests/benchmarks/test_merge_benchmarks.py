"""The benchmarks of merging and of its forecasts, at the smallest size."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import excess_forecast, merge_methods, merge_weights, merging
from lori_core.adapters.adapter import Adapter
from lori_core.config import Bound, PromptSection
from lori_core.core.files.atomic import write_jsonl
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded
from lori_core.evaluation.search.candidates import Measures
from lori_core.merging.learned.weight_groups import MergeWeights
from lori_core.merging.merge_methods import Options
from lori_core.methods.loaded_model import LoadedModel
from lori_core.models import base_model
from lori_core.pipeline import params_file
from lori_core.pipeline.merging import Parents
from support import random_adapter, tiny


def adapters_of_two_tasks() -> dict[str, Adapter]:
    return {
        key: random_adapter("llama", key=key, seed=seed, rank=4, alpha=1)
        for seed, key in enumerate(("math", "code"), start=1)
    }


def measures(adapters: dict[str, Adapter]) -> Measures:
    model, folder, base = tiny("llama")
    params = params_file.load(Path(__file__).parents[2] / "profiles" / "smoke.yaml")
    params = params.model_copy(update={"prompt": PromptSection(template="plain")})
    tokenizer = base_model.load_tokenizer(folder)
    session = LoadedModel(params, base, model, tokenizer, {}, model.num_parameters(), False)
    examples = {task: [Example(f"{task} question", "answer")] for task in adapters}
    rules = {"size_mb": Bound(at_most=100.0)}
    return Measures(session, dict(adapters), examples, 4, {}, rules, None)


@pytest.mark.parametrize("method", ["ties", "knots_ties", "dare_ties_svd"])
def test_growth_has_the_seconds_of_each_number_of_adapters(method: str) -> None:
    seconds = merging.growth(method, side=16, rank=2, counts=(2, 4))
    assert list(seconds) == [2, 4]
    assert all(value > 0 for value in seconds.values())


def test_steepness_is_one_for_linear_growth_and_the_ratio_for_quadratic_growth() -> None:
    assert merging.steepness({5: 1.0, 10: 3.0, 20: 6.0}) == 1.0
    assert merging.steepness({10: 1.0, 20: 4.0}) == 2.0


def test_the_table_of_methods_has_a_row_for_each_method() -> None:
    adapters = adapters_of_two_tasks()
    names = ["concat", "ties", "knots_ties"]
    found = list(merge_methods.rows("LoRI-S", measures(adapters), adapters, names, 0.5, 0.7))
    assert [(row["method"], row["rank"]) for row in found] == [
        ("concat", 8),
        ("ties", 4),
        ("knots_ties", 8),
    ]
    for row in found:
        kept = row["by_task"]
        assert row["retained"] == pytest.approx(sum(kept.values()) / len(kept))
        assert row["least"] == min(kept.values())
        assert row["refusal"] is None
        assert row["seconds"] > 0
    lines = merge_methods.table(found).splitlines()
    assert lines[0].startswith("| kind | method | retained | least | refusal | seconds |")
    assert lines[3].startswith("| LoRI-S | `ties` | ")
    assert lines[3].endswith(" | 4 |")


def test_methods_for_two_adapters_or_a_safety_adapter_are_left_out_where_they_do_not_fit() -> None:
    four, two = set(merge_methods.methods(4)), set(merge_methods.methods(2))
    assert two - four == {"safemerge"}
    assert "on_safety" not in two
    assert {"concat", "tsv", "core_space_ties"} <= four


def test_forecasts_of_pairs_are_compared_with_what_is_measured() -> None:
    adapters = adapters_of_two_tasks()
    rows = {task: [Encoded([5, 6, 7 + n], [8, 9, 3], False) for n in range(2)] for task in adapters}
    found = list(excess_forecast.pairs(tiny("llama")[0].double(), adapters, rows, [0.002, 1.0], 0))
    assert [(row["weight"], row["task"], row["other"]) for row in found] == [
        (0.002, "math", "code"),
        (0.002, "code", "math"),
        (1.0, "math", "code"),
        (1.0, "code", "math"),
    ]
    for row in found[:2]:  # a small weight: the first order is all
        assert row["by_gradient"] == pytest.approx(row["measured"], rel=0.3, abs=3e-6)
        assert 0 <= row["by_files"] <= 1


def test_a_rank_correlation_has_an_interval() -> None:
    numbers: list[Any] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert excess_forecast.correlation(numbers, [x**3 for x in numbers])["rho"] == 1.0
    mixed = excess_forecast.correlation(numbers, [2.0, 1.0, 4.0, 3.0, 6.0, 5.0])
    assert mixed["low"] < mixed["rho"] < mixed["high"] <= 1.0
    assert mixed["n"] == 6


def test_the_single_number_and_the_search_are_chosen_on_validation_examples() -> None:
    adapters = adapters_of_two_tasks()
    merging = Parents("concat", adapters, Options(), None)
    rows, candidates = merge_weights.chosen(
        merging, dict.fromkeys(adapters, 0.5), measures(adapters), [0.2, 1.0]
    )
    singles = [found for found in candidates if found["name"].startswith("uniform")]
    best = min(singles, key=lambda found: found["objective"])
    assert asdict(rows["best single number"]) == best["weights"]
    assert set(rows["searched"].weights) == {"math", "code"}
    assert MergeWeights(**asdict(rows["searched"])) == rows["searched"]


def verdicts(folder: Path, row: str, task: str, correct: list[bool], answer: str = "4") -> None:
    write_jsonl(
        folder / row / f"{task}.jsonl",
        [
            {"id": f"{task}-{n}", "correct": good, "parsed": "4", "answer": answer}
            for n, good in enumerate(correct)
        ],
    )


def test_runs_with_other_seeds_are_several_outputs_of_each_item(tmp_path: Path) -> None:
    folders = [tmp_path / "42", tmp_path / "43"]
    for folder, ours, theirs in zip(
        folders, ([True] * 8, [True] * 8), ([False] * 8, [True] * 8), strict=True
    ):
        verdicts(folder, "searched", "math", ours)
        verdicts(folder, "uniform 0.5", "math", theirs)
    (found,) = merge_weights.differences(folders, ["uniform 0.5"])
    assert (found["task"], found["rows"], found["items"]) == ("math", "all", 8)
    assert found["difference"] == 0.5
    (alone,) = merge_weights.differences(folders[1:], ["uniform 0.5"])
    assert (alone["difference"], alone["p"]) == (0.0, 1.0)
