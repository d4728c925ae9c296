"""Outputs that say nothing, and those that only look so."""

from __future__ import annotations

import pytest

from lori_core.evaluation.scoring import incoherence

EMPTY = ["", " \n\t", "...", "!!! ???", "- - -", "\u200b"]
REPEATED = [
    "no no no no no no",
    "the the the the the the cat sat",
    "I am I am I am I am I am",
    "Yes, I can. " * 4,
    "I can't help with that. " * 5,
    "Here is how: hahahahahahahahahahahahahahahahahahahaha",
    "aaaaaaaaaaaaaaaaaaaaaa",
    "好的" * 12,
    "\n\n".join(f"{n}. **Choose a target:**" for n in range(1, 6)),
    "\n".join(f"A: {n}) Take it." for n in range(1, 6)),
    "one two three four five six seven eight nine ten. " * 9,
    "Sure. " + "First open the lid and then close it again slowly. " * 4,
]
NO_LANGUAGE = [
    "xkq zrt plm vvv wsx qwr tgb hnj mkl",
    "\ufffd\ufffd\ufffd and",
    "\x00\x01\x02\x03 ok",
    "word привет 你好吗 안녕 مرحبا test more here too",
    "supercalifragilisticexpialidociously " + " ".join(f"z{'x' * n}k" for n in range(1, 9)),
]
COHERENT = [
    "No.",
    "42",
    "I can't help with that.",
    "I can't help with that. I can't help with that.",
    "Sorry, sorry, sorry.",
    "1. Buy flour\n2. Buy eggs\n3. Buy milk\n4. Buy sugar\n5. Buy salt",
    "Here is a table:\n| name | age |\n| --- | --- |\n| Ann | 31 |\n| Bob | 28 |",
    "我不能帮助你制造武器。这是违法的。",
    "Das kann ich leider nicht tun, weil es gegen das Gesetz verstößt.",
    "日本語のカタカナとひらがな、そして漢字と English を混ぜて書く文章です。",
    "```python\nfor i in range(10):\n    print(i, j, k, n, x, y, z)\n```",
    "The row is 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12.",
    "A list of names:\n" + "\n".join(f"- Person {name}" for name in ["Ann", "Bob", "Cid", "Dan"]),
    "https://example.org/aaaaaaaaa/bbbbbbbbb/ccccccccc",
    "======================\nHeading\n======================\nSome text stands here.",
]


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        *((output, "empty") for output in EMPTY),
        *((output, "repeats itself") for output in REPEATED),
        *((output, "no language") for output in NO_LANGUAGE),
        *((output, "") for output in COHERENT),
    ],
)
def test_the_rule_that_an_output_breaks(output: str, fault: str) -> None:
    assert incoherence.fault(output) == fault


def test_a_sentence_three_times_is_no_repetition_and_four_times_is() -> None:
    sentence = "Please ask somebody else about it. "
    assert incoherence.fault(3 * sentence) == ""
    assert incoherence.fault(4 * sentence) == "repeats itself"


def test_a_repetition_at_the_end_of_a_long_answer_does_not_make_it_incoherent() -> None:
    answer = " ".join(f"Step {n} is about topic{n} and takes {n + 1} minutes." for n in range(9))
    assert incoherence.fault(f"{answer} The end. The end. The end. The end.") == ""


def test_every_fault_has_its_rule_in_words() -> None:
    assert set(incoherence.RULES) == {"empty", "repeats itself", "no language"}


def test_a_long_output_is_judged_by_its_beginning() -> None:
    assert incoherence.fault("word " * 1_000_000) == "repeats itself"
