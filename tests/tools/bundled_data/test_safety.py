"""The bundled requests: exact, repeatable, kept apart; refusals refuse and answers answer."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from shipped import examples

from lori_core.core.errors import DataError
from lori_core.data.example import Example
from lori_core.evaluation.scoring.refusals import is_refusal
from tools.bundled_data import safety
from tools.bundled_data.safety_harmless import LOOKALIKES, ORDINARY
from tools.bundled_data.safety_requests import HARMFUL, OPENINGS, WORDINGS

SIZES = {"train": 800, "validation": 150, "test": 300}
ACTS = {
    "harmful": [act for _, lines in HARMFUL.values() for act in lines.strip().splitlines()],
    "lookalike": [line.split(" = ")[0] for line in LOOKALIKES.strip().splitlines()],
    "ordinary": [line.split(" = ")[0] for line in ORDINARY.strip().splitlines()],
}


@pytest.fixture(scope="module")
def generated() -> dict[str, list[Example]]:
    return safety.generate(SIZES, 1)


@pytest.fixture(scope="module", params=["generated", "shipped"])
def splits(
    request: pytest.FixtureRequest, generated: dict[str, list[Example]]
) -> dict[str, list[Example]]:
    return generated if request.param == "generated" else examples("safety")


def _all(splits: dict[str, list[Example]]) -> list[Example]:
    return [example for rows in splits.values() for example in rows]


def _act(example: Example) -> str:
    """Find the act again; a wording holds it as it is or as a gerund."""
    _, split, at = example.template.split("-")
    wording = WORDINGS[split].strip().splitlines()[int(at)]
    return next(
        act
        for act in ACTS[example.kind]
        if wording.format(act=act, doing=safety.gerund(act)) == example.prompt
    )


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", {"harmful": 200, "lookalike": 280, "ordinary": 320}),
        ("validation", {"harmful": 75, "lookalike": 38, "ordinary": 37}),
        ("test", {"harmful": 180, "lookalike": 60, "ordinary": 60}),
    ],
)
def test_sizes_and_shares_are_exact(
    generated: dict[str, list[Example]], split: str, counts: dict[str, int]
) -> None:
    assert Counter(example.kind for example in generated[split]) == counts


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 101])
def test_any_size_is_met(size: int) -> None:
    made = safety.generate({"train": size, "test": size}, 3)
    assert [len(rows) for rows in made.values()] == [size, size]


def test_the_same_arguments_give_the_same_rows(generated: dict[str, list[Example]]) -> None:
    again = safety.generate(SIZES, 1)
    assert {s: [r.row() for r in rows] for s, rows in generated.items()} == {
        s: [r.row() for r in rows] for s, rows in again.items()
    }
    assert safety.generate(SIZES, 2) != splits


def test_there_is_variety() -> None:
    wordings = [line for lines in WORDINGS.values() for line in lines.strip().splitlines()]
    assert len(wordings) == len(set(wordings)) >= 40
    acts = [act for of_kind in ACTS.values() for act in of_kind]
    assert len(acts) == len(set(acts))
    assert len(ACTS["harmful"]) >= 150
    assert len(ACTS["lookalike"]) >= 130
    assert len(HARMFUL) >= 12


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_stands_twice_or_in_two_splits(seed: int) -> None:
    splits = safety.generate({"train": 3000, "validation": 600, "test": 900}, seed)
    prompts = [example.prompt for example in _all(splits)]
    assert len(prompts) == len(set(prompts))
    templates = [{example.template for example in rows} for rows in splits.values()]
    assert not templates[0] & templates[1]
    assert not (templates[0] | templates[1]) & templates[2]


def test_test_acts_are_never_seen_in_training() -> None:
    splits = safety.generate({"train": 3000, "validation": 600, "test": 900}, 1)
    acts = {
        split: {_act(row) for row in rows if row.template.startswith("request-")}
        for split, rows in splits.items()
    }
    assert len(acts["test"]) > 100
    assert not acts["test"] & (acts["train"] | acts["validation"])


def test_a_wording_does_not_give_the_answer_away(splits: dict[str, list[Example]]) -> None:
    for rows in (splits["train"], splits["test"]):
        kinds: dict[str, set[str]] = {}
        for row in rows:
            kinds.setdefault(row.template, set()).add(row.answer)
        requests = [answers for name, answers in kinds.items() if name.startswith("request-")]
        assert all(answers == {"refuse", "comply"} for answers in requests)


def test_refusals_refuse_and_answers_answer(splits: dict[str, list[Example]]) -> None:
    openings = [opening.split("{")[0] for opening in OPENINGS]
    for example in _all(splits):
        assert example.scorer == "refusal"
        assert example.answer == ("refuse" if example.kind == "harmful" else "comply")
        assert is_refusal(example.target) == (example.answer == "refuse"), example.target
        if example.kind == "harmful":
            assert example.target.startswith(tuple(openings))
            # said back to the user, so nothing is mine
            assert not re.search(r"\b(my|me)\b", example.target.partition("with ")[2])


def test_a_refusal_names_the_act(splits: dict[str, list[Example]]) -> None:
    for example in splits["train"]:
        if example.kind == "harmful":
            first = safety.gerund(_act(example)).split()[0]
            assert f"with {first} " in example.target


def test_texts_are_short_single_lines(splits: dict[str, list[Example]]) -> None:
    for example in _all(splits):
        assert 2 <= len(example.prompt.split()) <= 20, example.prompt
        assert 1 <= len(example.target.split()) <= 26, example.target
        assert "\n" not in example.prompt + example.target
        assert not re.search(r"[{}=|]", example.prompt + example.target)


@pytest.mark.parametrize(
    ("act", "doing"),
    [
        ("rob a bank", "robbing a bank"),
        ("lie on a form", "lying on a form"),
        ("make tea", "making tea"),
        ("free a bird", "freeing a bird"),
        ("kidnap a man", "kidnapping a man"),
        ("fix a match", "fixing a match"),
        ("steal", "stealing"),
        ("torture-test a tent", "torture-testing a tent"),
    ],
)
def test_gerunds(act: str, doing: str) -> None:
    assert safety.gerund(act) == doing


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_more_than_can_be_made_is_refused(split: str) -> None:
    with pytest.raises(DataError, match=r"^safety: 1000000 .* only 0 to \d+ can") as caught:
        safety.generate({split: 1_000_000}, 1)
    assert "\n" not in str(caught.value)
    found = re.search(r"0 to (\d+)", str(caught.value))
    assert found
    most = int(found[1])
    prompts = {example.prompt for example in safety.generate({split: most}, 1)[split]}
    assert len(prompts) == most
    with pytest.raises(DataError):
        safety.generate({split: most + 1}, 1)


@pytest.mark.parametrize("sizes", [{"train": -1}, {"dev": 3}])
def test_wrong_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"^safety: "):
        safety.generate(sizes, 1)
