"""The bundled word problems: exact sizes, right solutions, nothing shared between splits."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from shipped import examples

from lori_core.core.errors import DataError
from lori_core.data.example import SPLITS, Example
from tools.bundled_data.math import generate
from tools.bundled_data.math_templates import PEOPLE, POOLS

SIZES = {"train": 2000, "validation": 300, "test": 500}
STEPS = {"one-step": 1, "two-step": 2, "three-step": 3, "four-step": 4}


@pytest.fixture(scope="module")
def generated() -> dict[str, list[Example]]:
    return generate(SIZES, 1)


@pytest.fixture(scope="module", params=["generated", "shipped"])
def data(
    request: pytest.FixtureRequest, generated: dict[str, list[Example]]
) -> dict[str, list[Example]]:
    return generated if request.param == "generated" else examples("math")


@pytest.mark.parametrize("size", [0, 1, 7, 99, 300])
def test_sizes_are_exact(size: int) -> None:
    made = generate(dict.fromkeys(SPLITS, size), 5)
    assert {split: len(rows) for split, rows in made.items()} == dict.fromkeys(SPLITS, size)


def test_default_sizes_and_mix(generated: dict[str, list[Example]]) -> None:
    assert {split: len(rows) for split, rows in generated.items()} == SIZES
    assert Counter(row.kind for row in generated["train"]) == {
        "one-step": 800,
        "two-step": 600,
        "three-step": 400,
        "four-step": 200,
    }


def test_same_arguments_same_rows_and_another_seed_others(
    generated: dict[str, list[Example]],
) -> None:
    assert generate(SIZES, 1) == generated
    assert generate(SIZES, 2)["train"] != generated["train"]


def test_splits_share_no_prompt_and_no_template(data: dict[str, list[Example]]) -> None:
    prompts = [row.prompt for split in SPLITS for row in data[split]]
    assert len(set(prompts)) == len(prompts)
    templates = [{row.template for row in data[split]} for split in SPLITS]
    assert len(set.union(*templates)) == sum(map(len, templates)) >= 250


def test_every_template_is_used(generated: dict[str, list[Example]]) -> None:
    assert [len({row.template for row in generated[split]}) for split in SPLITS] == [185, 49, 78]


def test_no_test_entity_in_training(data: dict[str, list[Example]]) -> None:
    words = {
        word
        for split in ("train", "validation")
        for row in data[split]
        for word in re.findall(r"[a-z]+", row.prompt.lower())
    }
    unseen = PEOPLE[1].split() + [
        form or f"{one}s"
        for _, entities in POOLS.values()
        for entity in entities.split()
        for one, _, many in [entity.partition(":")]
        for form in (one, many)
    ]
    assert len(unseen) > 100
    assert not [word for word in unseen if word.lower() in words]


def test_solutions_are_right(data: dict[str, list[Example]]) -> None:
    for row in (row for rows in data.values() for row in rows):
        *lines, last = row.target.split("\n")
        assert len(lines) == STEPS[row.kind]
        result = 0
        for line in lines:
            found = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", line)
            assert found, row
            x, y, result = int(found[1]), int(found[3]), int(found[4])
            expected = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else None}[found[2]]
            assert expected == result > 0, row
        assert last == f"The final answer is: {result}"
        assert (row.scorer, row.answer) == ("number", str(result))


def test_every_number_of_a_problem_is_used(data: dict[str, list[Example]]) -> None:
    for row in (row for rows in data.values() for row in rows):
        used = set(re.findall(r"\d+", row.target))
        told = set(re.findall(r"\d+", row.prompt))
        assert told <= used, row


def test_prompts_are_short_and_filled(data: dict[str, list[Example]]) -> None:
    for row in (row for rows in data.values() for row in rows):
        assert not set("{}&|") & set(row.prompt)
        assert row.prompt.endswith(("?", "."))
        assert len(row.prompt.split()) <= (25 if row.kind == "one-step" else 50), row


@pytest.mark.parametrize("split", SPLITS)
def test_the_most_that_is_named_can_be_made_and_no_more(split: str) -> None:
    with pytest.raises(DataError, match=r"only 0 to \d+ can be made") as caught:
        generate({split: 10**6}, 1)
    assert "\n" not in str(caught.value)
    most = int(re.findall(r"only 0 to (\d+)", str(caught.value))[0])
    assert len({row.prompt for row in generate({split: most}, 1)[split]}) == most
    with pytest.raises(DataError):
        generate({split: most + 1}, 1)


@pytest.mark.parametrize("sizes", [{"dev": 1}, {"train": -1}])
def test_wrong_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"^math: "):
        generate(sizes, 1)
