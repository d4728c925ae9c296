"""Paired comparisons against closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lori_core.core.errors import DataError
from lori_core.core.files.atomic import write_jsonl
from lori_core.evaluation.paired_comparison import compare, without_template_tokens


def verdicts(path: Path, correct: Sequence[Sequence[bool]], answer: str = "1") -> Path:
    """Write verdicts by item and sample."""
    rows = [
        {"id": f"item {i}", "sample": j, "correct": flag, "parsed": "1", "answer": answer}
        for i, flags in enumerate(correct)
        for j, flag in enumerate(flags)
    ]
    write_jsonl(path, rows)
    return path


def pair(folder: Path, first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]) -> Any:
    return compare(verdicts(folder / "a.jsonl", first), verdicts(folder / "b.jsonl", second))


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 1), (0, 6), (3, 3), (12, 4), (0, 0)])
def test_single_answers_get_mcnemars_exact_p(tmp_path: Path, only_a: int, only_b: int) -> None:
    first = [[True]] * only_a + [[False]] * only_b + [[True]] * 5 + [[False]] * 5
    second = [[False]] * only_a + [[True]] * only_b + [[True]] * 5 + [[False]] * 5
    found = pair(tmp_path, first, second)
    n, k = only_a + only_b, min(only_a, only_b)
    binomial = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert found.p == pytest.approx(min(1.0, 2 * binomial), abs=1e-15)
    assert found.n == n + 10
    assert found.difference == pytest.approx((only_a - only_b) / (n + 10), abs=1e-15)


def test_of_many_items_the_interval_is_nearly_the_normal_one(tmp_path: Path) -> None:
    first = [[True]] * 600 + [[False]] * 400
    second = [[True]] * 300 + [[False]] * 300 + [[True]] * 100 + [[False]] * 300
    found = pair(tmp_path, first, second)
    deviation = math.sqrt((0.4 - 0.2**2) / 1000)
    assert (found.difference, found.lost, found.gained) == (0.2, 100, 300)
    assert found.low == pytest.approx(0.2 - 1.96 * deviation, abs=0.002)
    assert found.high == pytest.approx(0.2 + 1.96 * deviation, abs=0.002)
    assert pair(tmp_path, first, second) == found


@pytest.mark.parametrize(("only_a", "only_b"), [(5, 0), (6, 0), (9, 1), (8, 1), (9, 2), (1, 9)])
def test_the_interval_excludes_0_where_the_p_value_is_small(
    tmp_path: Path, only_a: int, only_b: int
) -> None:
    first = [[True]] * only_a + [[False]] * only_b + [[True]] * 20
    second = [[False]] * only_a + [[True]] * only_b + [[True]] * 20
    found = pair(tmp_path, first, second)
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_items_the_score_leaves_out_are_not_compared(tmp_path: Path) -> None:
    for name, flags in (("a", (True, True, False)), ("b", (False, True, True))):
        rows = [
            {
                "id": str(item),
                "correct": flag,
                "parsed": "1",
                "answer": "1",
                "counted": item < 2,
            }
            for item, flag in enumerate(flags)
        ]
        write_jsonl(tmp_path / name, rows)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.n, found.difference) == (2, 0.5)


def test_models_that_agree_do_not_differ(tmp_path: Path) -> None:
    found = pair(tmp_path, [[True, False]] * 4, [[False, True]] * 4)
    assert (found.difference, found.p, found.n, found.lost, found.gained) == (0, 1, 4, 0, 0)
    # Four items do not say that the next ones are answered equally well.
    end = 1 - 0.025 ** (1 / 4)
    assert (found.low, found.high) == pytest.approx((-end, end))


def test_averaged_samples_get_the_exact_permutation_p(tmp_path: Path) -> None:
    first, second = [[4, 3, 4, 2, 4, 3, 1, 4], [1, 2, 0, 2, 1, 4, 0, 3]]
    found = pair(tmp_path, *([[i < c for i in range(4)] for c in side] for side in (first, second)))
    differences = np.array(first) - np.array(second)
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = np.array([np.dot(sign, differences) for sign in signs])
    assert found.difference == sum(differences) / 4 / 8
    assert found.p == pytest.approx(2 * np.mean(sums >= sum(differences)), abs=1e-15)


def test_many_averaged_samples_repeat(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    first, second = ((random.random((60, 5)) < share).tolist() for share in (0.6, 0.35))
    found = pair(tmp_path, first, second)
    assert found == pair(tmp_path, first, second)
    assert found.p < 0.001
    assert found.low < found.difference < found.high
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second), abs=1e-15)


def test_files_with_another_number_of_samples_are_compared(tmp_path: Path) -> None:
    found = pair(tmp_path, [[True, False, False]], [[True, False]])
    assert found.difference == pytest.approx(1 / 3 - 1 / 2, abs=1e-15)
    assert found.p == 1


def test_items_are_matched_by_id_not_by_place(tmp_path: Path) -> None:
    first = verdicts(tmp_path / "a.jsonl", [[True], [False], [True]])
    rows = [{"id": f"item {i}", "correct": i != 1, "parsed": "", "answer": ""} for i in (2, 0, 1)]
    write_jsonl(tmp_path / "b.jsonl", rows)
    assert compare(first, tmp_path / "b.jsonl").p == 1
    assert compare(first, tmp_path / "b.jsonl").difference == 0


def test_refusals_are_compared_on_the_rows_the_score_is_about(tmp_path: Path) -> None:
    def write(name: str, refused: str) -> Path:
        answers = ["refuse"] * 3 + ["comply"] * 3
        write_jsonl(
            tmp_path / name,
            [
                {
                    "id": str(i),
                    "answer": answer,
                    "parsed": {"r": "refused", "a": "answered", "-": ""}[mark],
                    "correct": mark == {"refuse": "r", "comply": "a"}[answer],
                }
                for i, (answer, mark) in enumerate(zip(answers, refused, strict=True))
            ],
        )
        return tmp_path / name

    first, second = write("a.jsonl", "rra" + "raa"), write("b.jsonl", "aaa" + "-rr")
    refused = compare(first, second, "refuse")
    assert (refused.difference, refused.n, refused.p) == (pytest.approx(2 / 3), 3, 0.5)
    over = compare(first, second, "comply")  # an empty output is no refusal
    assert (over.difference, over.n, over.p) == (pytest.approx(-1 / 3), 3, 1)


def test_other_items_are_refused(tmp_path: Path) -> None:
    verdicts(tmp_path / "a.jsonl", [[True]] * 3)
    verdicts(tmp_path / "b.jsonl", [[True]] * 5)
    with pytest.raises(DataError, match=r"a\.jsonl and .*b\.jsonl: 2 ids are in only one of them"):
        compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")


def test_rows_that_are_no_verdicts_are_refused(tmp_path: Path) -> None:
    path = verdicts(tmp_path / "a.jsonl", [[True]])
    with pytest.raises(DataError, match="no row has the answer 'comply'"):
        compare(path, path, "comply")
    write_jsonl(path, [{"id": "1", "correct": True}, {"correct": True}])
    with pytest.raises(DataError, match=r"a\.jsonl: row 2 is no verdict"):
        compare(path, path)


@pytest.mark.parametrize(
    "rendered",
    [
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nIs 2 < 3?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|start_header_id|>user<|end_header_id|>\n\nIs 2 < 3?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s>[INST] Is 2 < 3? [/INST]",
        "Is 2 < 3?",
    ],
)
def test_a_prompt_is_shown_without_the_special_tokens_of_its_template(rendered: str) -> None:
    assert without_template_tokens(rendered) == "Is 2 < 3?"
