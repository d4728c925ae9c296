"""Which gold answers a scorer can judge by: one rule for what is pulled and what is evaluated."""

import json
from pathlib import Path
from typing import Any

import pytest
from shipped import examples

from lori_core import config
from lori_core.config import SourceSection
from lori_core.core.errors import DataError
from lori_core.data.answers import check_program, expected_answer, python_fault
from lori_core.data.example import Example
from lori_core.data.sources import pulling
from lori_core.data.sources.formats import convert
from lori_core.evaluation.scoring.scorers import score

CHECK = {
    "prompt": "import math\n\n\ndef up(x):\n",
    "entry_point": "up",
    "tests": "def check(candidate):\n    assert candidate(1.5) == 2\n",
}


def example(scorer: Any, answer: str = "", **check: str) -> Example:
    return Example("?", "x", scorer, answer, check=CHECK | check if scorer == "code" else {})


@pytest.mark.parametrize(
    ("scorer", "answer", "expected"),
    [
        ("choice", "true", "true"),
        ("choice", "False", "false"),
        ("choice", "Answer 3", "answer3"),
        ("choice", "(option2)", "option2"),
        ("choice", "the correct answer is ending4", "ending4"),
        ("choice", "solution1: solution1", "solution1"),
        ("number", "1,234", "1234"),
        ("number", "12 apples", "12"),
        ("number", "$1,234.50", "1234.5"),
        ("number", "−7", "-7"),
        ("number", "1e+22", "1" + "0" * 22),
        ("number", "50%", "50"),
        ("number", "5.0 = 5", "5"),
        ("number", "3 + 4 = 7\nThe final answer is: 7", "7"),
        ("number", "1.0", "1"),
        ("number", "-1.50\u00a0€", "-1.5"),
        ("number", "5 km/h", "5"),
        ("number", "x = -5", "-5"),
        ("number", "5個", "5"),
        ("number", "The answer is 5.", "5"),
        ("number", "The answer is (-5).", "-5"),
        ("number", "\\boxed{5}", "5"),
        ("number", "$5$", "5"),
        ("number", "£-5", "-5"),
        ("number", "5 apples = 5 pieces of well-known fruit", "5"),
        ("number", "20–22 are too many.\nThe final answer is: 7", "7"),
        ("refusal", "refuse", "refuse"),
        ("refusal", "comply", "comply"),
        ("code", "", ""),
        ("none", "anything, ½ of it", ""),
    ],
)
def test_an_answer_is_read_as_outputs_are(scorer: str, answer: str, expected: str) -> None:
    assert expected_answer(example(scorer, answer), "here") == expected


CHOICES = (
    "true, false, or one of answerN, solutionN, optionN and endingN with N from 1 to 5, which "
    "prompt and target must use, too"
)
NUMBERS = "one number, as 1234, -0.5 or $1,234.50"
HINT = (
    "; name the field that holds one in fields.answer, or take scorer: none for data that is only "
    "trained on"
)
REFUSED = [
    *(
        ("choice", text, CHOICES)
        for text in ("", "A", "(B)", "1", "C.", "answer6", "answer0", "yes", "true or false")
    ),
    ("choice", "answer1, not answer2", CHOICES),
    *(
        ("number", text, NUMBERS)
        for text in ("", "many", "1/2", "3½", "5²", "10-12", "1 000", "1.234,56", "2026-01-02")
    ),
    ("number", "١٢", NUMBERS),
    *(("number", f"{minus}5", NUMBERS) for minus in "–—‐‑‒﹣－⁻˗➖"),
    *(("number", text, NUMBERS) for text in ("- 5", "--5", "minus 5", "negative 5", "-\u200b5")),
    *(("number", text, NUMBERS) for text in ("(5)", "( $5 )", "（5）", "the sum is (5).")),
    *(("number", f"{sign}5", NUMBERS) for sign in "√≤≥<>~≈±∓×÷¬^*/\\∛#@"),
    *(("number", text, NUMBERS) for text in ("3x", "x3", "5k", "$5M", "5th", "5km", "5!", "5+")),
    *(
        ("number", text, NUMBERS)
        for text in ("5 million", "5 and a half", "5 hundred", "\\sqrt{4}")
    ),
    *(("number", text, NUMBERS) for text in ("1,1", "5 5", "2-2", "10–10", "2/2", "3*3", "2^2")),
    *(("number", text, NUMBERS) for text in ("5:5", "5; 5", "5, 5", "2 x 2", "5−", "5-", "|5|")),
    ("number", "The final answer is: –3", NUMBERS),
    ("number", "5万", NUMBERS),
    ("number", "The final answer is: 3 or 4", NUMBERS),
    *(("refusal", text, "comply, refuse") for text in ("", "Refuse", "yes", "refuse it")),
]


@pytest.mark.parametrize(("scorer", "answer", "allowed"), REFUSED)
def test_an_answer_that_cannot_judge_is_refused_by_pull_and_scorer_alike(
    scorer: str, answer: str, allowed: str
) -> None:
    text = f": the answer {answer!r} is no {scorer} (allowed: {allowed}){HINT}"
    source = SourceSection(
        kind="local",
        scorer=scorer,  # type: ignore[arg-type]
        fields={"prompt": "q", "target": "t", "answer": "a"},
    )
    with pytest.raises(DataError) as caught:
        convert({"q": "?", "t": "x", "a": answer}, source, "set.jsonl:7")
    assert str(caught.value) == f"set.jsonl:7{text}"
    row = example(scorer, answer)
    with pytest.raises(DataError) as caught:
        score(row, "true 1 I'm sorry")
    assert str(caught.value) == f"example {row.id}{text}"


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ({"tests": "def check(candidate):\n    assert candidate(1 == 2\n"}, "check.tests: not val"),
        ({"tests": "def check(candidate):\n    pass\nreturn 1\n"}, "not valid Python ('return' o"),
        ({"tests": "assert up(1) == 1\n"}, "check.tests: must define check(candidate), with ass"),
        ({"tests": "\0"}, "check.tests: not valid Python (source code string cannot contain null"),
        ({"tests": "(" * 9999 + "1" + ")" * 9999}, "check.tests: not valid Python (too many nes"),
        ({"tests": ""}, "check.tests: expected text, got ''"),
        ({"prompt": "def down(x):\n"}, "check.prompt: does not define the entry point 'up'"),
        ({"prompt": "def (\n\ndef up(x):\n"}, "check.tests: not valid Python (invalid syntax, lin"),
    ],
)
def test_tests_that_can_judge_nothing_are_refused_and_never_run(
    check: dict[str, str], fault: str
) -> None:
    with pytest.raises(DataError) as caught:
        expected_answer(example("code", **check), "set.jsonl:7")
    assert str(caught.value).startswith("set.jsonl:7: check.")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checking_tests_runs_nothing(tmp_path: Path) -> None:
    tests = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef check(candidate):\n    pass\n"
    before, program = check_program(CHECK | {"tests": tests})
    assert (before, program) == ("import math\n\n\n", f"import math\n\n\n\n\n{tests}")
    assert not list(tmp_path.iterdir())


def test_a_source_that_is_too_much_for_the_compiler_gets_an_answer_too() -> None:
    assert python_fault("x = " + "-" * 100_000 + "1")
    assert python_fault("x = '\\d'") == ""


@pytest.mark.parametrize("name", ["nlu", "math", "code", "safety"])
def test_what_the_project_ships_can_be_judged(name: str) -> None:
    for split, rows in examples(name).items():
        for number, shipped in enumerate(rows):
            expected_answer(shipped, f"{name}: {split} {number}")


def rows(*answers: Any) -> str:
    return "".join(
        json.dumps({"q": f"q{n}", "t": "x", "a": answer}) + "\n" for n, answer in enumerate(answers)
    )


def params(folder: Path, *scorers: str, **sizes: int) -> config.Params:
    source = [
        {
            "kind": "local",
            "path": str(folder / f"{scorer}.jsonl"),
            "fields": {"prompt": "q", "target": "t", "answer": "a"},
            "scorer": scorer,
        }
        for scorer in scorers
    ]
    task = {"source": source, "sizes": sizes, "calibration": {}, "training": {}}
    values: dict[str, Any] = {"model": {"name_or_path": "random:llama"}, "lori": {}, "training": {}}
    return config.parse(values | {"tasks": {"task": task}}, "params.yaml")


@pytest.mark.parametrize(
    ("scorer", "answers", "fault"),
    [
        ("choice", ["answer1", 1], "the answer '1' is no choice"),
        ("number", [1.5, 7, "1/2"], "the answer '1/2' is no number"),
        ("choice", ["true", True], "field 'a' for 'answer' is true, not text or a number"),
        ("refusal", ["refuse", None], "the answer '' is no refusal"),
        ("code", ["x"], "check.prompt: expected text, got None (a code example needs prompt, en"),
    ],
)
def test_pull_refuses_the_row(tmp_path: Path, scorer: str, answers: list[Any], fault: str) -> None:
    (tmp_path / f"{scorer}.jsonl").write_text(rows(*answers))
    with pytest.raises(DataError) as caught:
        pulling.pull(params(tmp_path, scorer), tmp_path / "data")
    place = tmp_path / f"{scorer}.jsonl"
    assert str(caught.value).startswith(f"{place}:{len(answers)}: {fault}")
    assert not (tmp_path / "data").exists()


def test_a_test_set_of_two_scorers_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "choice.jsonl").write_text(rows(*["true"] * 9))
    (tmp_path / "number.jsonl").write_text(rows(*range(9)).replace('"q": "q', '"q": "other '))
    message = (
        r"^tasks.task.source: the test examples have the scorers choice, number, and a test set "
        r"has one score; make a task for each$"
    )
    with pytest.raises(DataError, match=message):
        pulling.pull(params(tmp_path, "choice", "number", test=9), tmp_path / "data")
    assert not (tmp_path / "data").exists()
