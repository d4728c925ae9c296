"""The bundled functions: exact sizes, targets that pass their tests, nothing shared by splits."""

from __future__ import annotations

import ast
import re
from collections import Counter
from random import Random
from typing import Any

import pytest
from shipped import examples

from lori_core.core.errors import DataError
from lori_core.data.example import SPLITS, Example
from tools.bundled_data.code import _example, generate
from tools.bundled_data.code_families import FAMILIES
from tools.bundled_data.write import FIRST

SIZES = {"train": 400, "validation": 60, "test": 120}
PROMPT = re.compile(r'Complete this Python function:\n\n(def (\w+)\(.*\):\n    """(.+)"""\n)')


@pytest.fixture(scope="module")
def generated() -> dict[str, list[Example]]:
    return generate(SIZES, 1)


@pytest.fixture(scope="module", params=["generated", "shipped"])
def data(
    request: pytest.FixtureRequest, generated: dict[str, list[Example]]
) -> dict[str, list[Example]]:
    return generated if request.param == "generated" else examples("code")


def every(data: dict[str, list[Example]]) -> list[Example]:
    return [row for split in SPLITS for row in data[split]]


def source(row: Example) -> str:
    return row.target.removeprefix("```python\n").removesuffix("\n```")


def body(row: Example) -> str:
    return source(row).split("\n", 1)[1] + "\n"


def doc(row: Example) -> str:
    found = PROMPT.fullmatch(row.prompt)
    assert found, row.prompt
    return found[3]


def passes(row: Example, program: str) -> bool:
    scope: dict[str, Any] = {}
    exec(program + "\n" + row.check["tests"], scope)  # noqa: S102 - our own sources
    try:
        scope["check"](scope[row.check["entry_point"]])
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("size", [0, 1, 7, 60])
def test_sizes_are_exact(size: int) -> None:
    made = generate(dict.fromkeys(SPLITS, size), 5)
    assert {split: len(rows) for split, rows in made.items()} == dict.fromkeys(SPLITS, size)


def test_default_sizes_and_mix(generated: dict[str, list[Example]]) -> None:
    assert {split: len(rows) for split, rows in generated.items()} == SIZES
    assert Counter(row.kind for row in generated["train"]) == {
        "list-number": 140,
        "string": 100,
        "number": 80,
        "dict": 80,
    }


def test_same_arguments_same_rows_and_another_seed_others(
    generated: dict[str, list[Example]],
) -> None:
    assert generate(SIZES, 1) == generated
    assert generate(SIZES, 2)["train"] != generated["train"]


def test_prompt_and_target_have_the_agreed_form(data: dict[str, list[Example]]) -> None:
    for row in every(data):
        found = PROMPT.fullmatch(row.prompt)
        assert found, row.prompt
        assert row.check["prompt"] == found[1]
        assert row.check["entry_point"] == found[2]
        assert row.scorer == "code"
        assert source(row).split("\n")[0] == found[1].split("\n")[0]
        assert 1 <= len(body(row).splitlines()) <= 6
        ast.parse(source(row))
        assert not set("{}") & set(doc(row))


@pytest.mark.parametrize("seed", [1, 2, 3, None])
def test_splits_share_no_docstring_template_or_name(seed: int | None) -> None:
    data = examples("code") if seed is None else generate(SIZES, seed)
    rows = every(data)
    assert len({row.prompt for row in rows}) == len(rows)
    assert len({doc(row) for row in rows}) == len(rows)
    for of in (lambda row: row.template, lambda row: row.check["entry_point"]):
        sets = [{of(row) for row in data[split]} for split in SPLITS]
        assert len(set.union(*sets)) == sum(map(len, sets))
    assert len({row.template for row in rows}) >= 300


@pytest.mark.parametrize("seed", [1, 2, 3, None])
def test_half_of_the_test_split_has_a_part_never_trained_on(seed: int | None) -> None:
    data = examples("code") if seed is None else generate(SIZES, seed)
    trained = {part for row in data["train"] for part in row.template.split(">")}
    new = [row for row in data["test"] if not set(row.template.split(">")) <= trained]
    assert 0.45 <= len(new) / len(data["test"]) <= 0.55
    assert len({part for row in new for part in row.template.split(">")} - trained) >= 10
    assert all(set(row.template.split(">")) <= trained for row in data["validation"])


def test_targets_pass_and_empty_functions_fail(data: dict[str, list[Example]]) -> None:
    for row in every(data):
        count = row.check["tests"].count("assert ")
        assert 4 <= count <= 6, row
        assert passes(row, source(row)), row
        assert passes(row, row.check["prompt"] + body(row)), row
        assert not passes(row, row.check["prompt"] + "    return None\n"), row


def results(row: Example) -> set[str]:
    return {line.split(" == ", 1)[1] for line in row.check["tests"].splitlines()[1:]}


def test_no_constant_passes(generated: dict[str, list[Example]]) -> None:
    assert [row for row in every(generated) if len(results(row)) == 1] == []


def test_of_the_shipped_functions_one_is_a_constant() -> None:
    (row,) = (row for row in every(examples("code")) if len(results(row)) == 1)
    assert "multiply by 6 and take the remainder modulo 6" in doc(row)
    assert row in examples("code")["test"][: FIRST["code"]["test"]]


def test_every_composition_can_be_written() -> None:
    for family in FAMILIES:
        compositions = list(family.compositions())
        for index in range(0, len(compositions), 37):
            row = _example(compositions[index], "train", index, Random(index))
            assert passes(row, source(row)), row
            assert not passes(row, row.check["prompt"] + "    return None\n"), row


@pytest.mark.parametrize(
    ("template", "program"),
    [
        ("values>even>squared>sum", "sum(v ** 2 for v in values if not v & 1)"),
        ("values>above>->count", "sum(1 for v in values if v > {k})"),
        ("values>positive>->product", "__import__('math').prod(v for v in values if v > 0)"),
        ("words>longer>upper>spaced", "' '.join(w.upper() for w in words if len(w) > {k})"),
        ("chars>vowels>->count", "sum(text.lower().count(v) for v in 'aeiou')"),
        ("digits>->->sum", "sum(map(int, str(n)))"),
        ("of_values>odd>all", "not [v for v in values if v % 2 == 0]"),
    ],
)
def test_another_right_way_passes(template: str, program: str) -> None:
    (composition,) = (
        one for family in FAMILIES for one in family.compositions() if one.template == template
    )
    row = _example(composition, "train", 0, Random(3))
    k = re.findall(r"\d+", doc(row))
    answer = program.replace("{k}", k[0] if k else "")
    assert passes(row, f"{row.check['prompt']}    return {answer}\n")


@pytest.mark.parametrize("split", SPLITS)
def test_more_than_can_be_made_is_refused(split: str) -> None:
    with pytest.raises(DataError, match=r"only 0 to \d+ can be made") as caught:
        generate({split: 10**6}, 1)
    assert "\n" not in str(caught.value)


def test_the_most_that_is_named_can_be_made() -> None:
    with pytest.raises(DataError) as caught:
        generate({"validation": 10**6}, 1)
    most = int(re.findall(r"only 0 to (\d+)", str(caught.value))[0])
    rows = generate({"validation": most}, 1)["validation"]
    assert len({doc(row) for row in rows}) == most
    with pytest.raises(DataError):
        generate({"validation": most + 1}, 1)


@pytest.mark.parametrize("sizes", [{"dev": 1}, {"train": -1}])
def test_wrong_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"^code: "):
        generate(sizes, 1)
