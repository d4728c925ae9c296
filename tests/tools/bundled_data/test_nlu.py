"""The bundled questions: exact, repeatable, kept apart, and each gold answer derived anew."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from shipped import examples

from lori_core.core.errors import DataError
from lori_core.data.example import Example
from tools.bundled_data import nlu
from tools.bundled_data.nlu_facts import CATEGORIES, TABLES
from tools.bundled_data.nlu_wordings import WORDINGS
from tools.bundled_data.nlu_world import World

SIZES = {"train": 2000, "validation": 300, "test": 500}
ARTICLE = re.compile(r"^an? ", re.IGNORECASE)
CATEGORY = {
    word: {name.rstrip("*") for name in line.split(": ")[0].split("/")}
    for line in CATEGORIES.strip().splitlines()
    for word in line.split(": ")[1].split(", ")
}
FACTS = {
    name: {
        entry.split("=")[0]: set(entry.split("=")[1].split(">")[0].split("/"))
        for entry in table.strip().replace("\n", ", ").split(", ")
    }
    for name, table in TABLES.items()
} | {"category": CATEGORY}


@pytest.fixture(scope="module")
def generated() -> dict[str, list[Example]]:
    return nlu.generate(SIZES, 1)


@pytest.fixture(scope="module", params=["generated", "shipped"])
def splits(
    request: pytest.FixtureRequest, generated: dict[str, list[Example]]
) -> dict[str, list[Example]]:
    return generated if request.param == "generated" else examples("nlu")


def _all(splits: dict[str, list[Example]]) -> list[Example]:
    return [example for rows in splits.values() for example in rows]


def _question(example: Example) -> str:
    return example.prompt.split("question: ", 1)[1].split("\n\n")[0].removesuffix("?")


def _options(example: Example) -> list[str]:
    line = example.prompt.split("\n\n")[1]
    return [option.strip() for option in re.split(r"Answer\d: ", line)[1:]]


def _gold(example: Example) -> str:
    return _options(example)[int(example.answer.removeprefix("answer")) - 1]


def _slots(example: Example) -> dict[str, str]:
    """Find what stood in the slots, by the wording that the template names."""
    family, form, split, index = example.template.split("-")
    part = WORDINGS[family, form].split(" | ")[list(SIZES).index(split)]
    wording = part.split(" / ")[int(index)].removesuffix("?")
    names = re.findall(r"{(\w+)}", wording)
    pattern = re.escape(wording)
    for name in dict.fromkeys(names):
        # greedy for the subject: "is {s} {v}" holds a polar bear and white
        inside = {"s": ".+", "w": ".+", "v": ".+?", "av": "an? .+"}[name]
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{inside})", 1)
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P={name})")
    found = re.fullmatch(pattern, _question(example), re.IGNORECASE)
    assert found, (wording, _question(example))
    return found.groupdict()


def _bare(text: str, known: dict[str, set[str]]) -> str:
    """Take the article away, and the capital of a question that begins with the word."""
    bare = ARTICLE.sub("", text, count=1)
    lower = ARTICLE.sub("", text[0].lower() + text[1:], count=1)
    return next(word for word in (text, bare, lower) if word in known)


def test_sizes_are_exact_and_a_quarter_is_boolean(generated: dict[str, list[Example]]) -> None:
    assert {split: len(rows) for split, rows in generated.items()} == SIZES
    for split, rows in generated.items():
        assert sum(row.kind == "boolean" for row in rows) == SIZES[split] // 4


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 101])
def test_any_size_is_met(size: int) -> None:
    assert len(nlu.generate({"test": size}, 3)["test"]) == size


def test_the_same_arguments_give_the_same_rows(generated: dict[str, list[Example]]) -> None:
    again = nlu.generate(SIZES, 1)
    assert {s: [r.row() for r in rows] for s, rows in generated.items()} == {
        s: [r.row() for r in rows] for s, rows in again.items()
    }
    assert nlu.generate(SIZES, 2) != splits


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_stands_twice_or_in_two_splits(seed: int) -> None:
    splits = nlu.generate({"train": 4000, "validation": 1000, "test": 2000}, seed)
    prompts = [example.prompt for example in _all(splits)]
    assert len(prompts) == len(set(prompts))
    templates = [{example.template for example in rows} for rows in splits.values()]
    assert not templates[0] & templates[1]
    assert not (templates[0] | templates[1]) & templates[2]


def test_no_wording_stands_twice_in_a_family() -> None:
    wordings = {
        key: [wording for part in text.split(" | ") for wording in part.split(" / ")]
        for key, text in WORDINGS.items()
    }
    assert sum(map(len, wordings.values())) >= 60
    assert len({family for family, _ in wordings}) >= 25
    for texts in wordings.values():
        assert len(texts) == len(set(texts))


def test_test_subjects_are_never_asked_about_elsewhere(splits: dict[str, list[Example]]) -> None:
    side = World().for_test
    for split, rows in splits.items():
        for example in rows:
            family, form, *_ = example.template.split("-")
            if family in ("odd", "bigger", "smaller") and form == "choice":
                assert {side[option] for option in _options(example)} == {split == "test"}
            elif family in FACTS:
                assert side[_subject(example)] == (split == "test"), example.prompt


def _subject(example: Example) -> str:
    family, form, *_ = example.template.split("-")
    if form == "reverse":
        return _gold(example)
    slots = _slots(example)
    return _bare(slots.get("w") or slots["s"], FACTS[family])


def test_answers_are_balanced(generated: dict[str, list[Example]]) -> None:
    for rows in generated.values():
        booleans = Counter(row.answer for row in rows if row.kind == "boolean")
        assert abs(booleans["true"] - booleans["false"]) <= 1
        for count in (2, 3, 4):
            places = Counter(
                row.answer for row in rows if row.kind == "choice" and len(_options(row)) == count
            )
            assert len(places) == count
            assert max(places.values()) - min(places.values()) <= 1
        fours = sum(len(_options(row)) == 4 for row in rows if row.kind == "choice")
        assert 2 * fours > sum(row.kind == "choice" for row in rows)


def test_forms_and_targets(splits: dict[str, list[Example]]) -> None:
    for example in _all(splits):
        assert example.scorer == "choice"
        if example.kind == "boolean":
            assert example.target == f"the correct answer is {example.answer}"
            assert re.fullmatch(
                r"Please answer the following question with true or false, question: [^\n?]+\?"
                r"\n\nAnswer format: true/false",
                example.prompt,
            )
        else:
            names = [f"answer{number + 1}" for number in range(len(_options(example)))]
            assert example.prompt.endswith(f"\n\nAnswer format: {'/'.join(names)}")
            assert example.prompt.startswith("Please choose the correct answer to the question: ")
            assert example.answer in names
            chosen = _options(example)[names.index(example.answer)]
            assert example.target == f"the correct answer is {chosen}, {example.answer}"
            assert len(set(_options(example))) == len(names)


def test_prompts_are_short(splits: dict[str, list[Example]]) -> None:
    rows = _all(splits)
    assert max(len(example.prompt.split()) for example in rows) <= 40
    assert sum(len(example.prompt.split()) for example in rows) / len(rows) <= 25


def test_gold_answers_follow_from_the_facts(splits: dict[str, list[Example]]) -> None:
    checked: Counter[str] = Counter()
    for example in _all(splits):
        family, form, *_ = example.template.split("-")
        if family not in FACTS:
            continue
        facts = FACTS[family]
        if form == "choice":
            right = facts[_subject(example)]
            assert [option in right for option in _options(example)].count(True) == 1
            assert _gold(example) in right
        else:
            slots = _slots(example)
            value = slots.get("v") or ARTICLE.sub("", slots["av"])
            if form == "reverse":
                fits = [option for option in _options(example) if value in facts[option]]
                assert fits == [_gold(example)], example.prompt
            else:
                holds = value in facts[_subject(example)]
                assert example.answer == str(holds).lower(), example.prompt
        checked[form] += 1
    assert min(checked.values()) > 200


def test_computed_answers(splits: dict[str, list[Example]]) -> None:
    checked: Counter[str] = Counter()
    for example in _all(splits):
        family, form, *_ = example.template.split("-")
        check = f"_right_{family}_{form}"
        if check in globals():
            assert globals()[check](example), example.prompt
            checked[check] += 1
    assert len(checked) == 8
    assert min(checked.values()) > 10


def _right_greater_choice(example: Example) -> bool:
    return int(_gold(example)) == max(map(int, _options(example)))


def _right_less_choice(example: Example) -> bool:
    return int(_gold(example)) == min(map(int, _options(example)))


def _right_greater_boolean(example: Example) -> bool:
    slots = _slots(example)
    return (int(slots["s"]) > int(slots["v"])) == (example.answer == "true")


def _right_less_boolean(example: Example) -> bool:
    slots = _slots(example)
    return (int(slots["s"]) < int(slots["v"])) == (example.answer == "true")


def _right_plus_choice(example: Example) -> bool:
    left, right = _slots(example)["s"].split(" plus ")
    return int(left) + int(right) == int(_gold(example))


def _right_letter_choice(example: Example) -> bool:
    return _slots(example)["w"][0].upper() == _gold(example)


def _right_odd_choice(example: Example) -> bool:
    rest = [CATEGORY[option] for option in _options(example) if option != _gold(example)]
    shared = set.intersection(*rest)
    return bool(shared) and not shared & CATEGORY[_gold(example)]


def _right_all_boolean(example: Example) -> bool:
    words = re.split(r", | and ", _slots(example)["v"])
    together = bool(set.intersection(*(CATEGORY[word] for word in words)))
    return together == (example.answer == "true")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_more_than_can_be_made_is_refused(split: str) -> None:
    with pytest.raises(DataError, match=r"^nlu: 1000000 .* only 0 to \d+ can be made") as caught:
        nlu.generate({split: 1_000_000}, 1)
    assert "\n" not in str(caught.value)
    found = re.search(r"0 to (\d+)", str(caught.value))
    assert found
    most = int(found[1])
    prompts = {example.prompt for example in nlu.generate({split: most}, 1)[split]}
    assert len(prompts) == most


@pytest.mark.parametrize("sizes", [{"train": -1}, {"dev": 3}])
def test_wrong_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"^nlu: "):
        nlu.generate(sizes, 1)
