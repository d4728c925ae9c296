"""Convert records in the formats of benchmarks to the fields of an example.

The multiple-choice prompts are exactly those of LLM-Adapters. `commonsense_170k` has them too, so a
model trained on it is evaluated with the prompts of its training.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lori_core.core.errors import DataError, shown
from lori_core.data.answers import COMPLY, REFUSE, definition, python_fault
from lori_core.data.text import names_in, storable, text_of

Record = Mapping[str, Any]
Fields = dict[str, Any]

_QUESTION = "Please choose the correct answer to the question: "
_SOLUTION = "Please choose the correct solution to the question: "
_ENDING = "Please choose the correct ending to complete the given sentence: "
_BLANK = "Please choose the correct answer to fill in the blank to complete the given sentence: "
_STEPS = "Answer the above question. First think step by step and then answer the final number."


@dataclass(frozen=True)
class Benchmark:
    """The record format of a benchmark.

    Attributes:
        convert: (record, its file and line) -> `prompt`, `target` and more fields of `Example`.
        needs: the fields that a record of this format must have.
    """

    convert: Callable[[Record, str], Fields]
    needs: tuple[str, ...]


def convert(name: str, record: Record, where: str) -> Fields:
    """Convert a record in the format `name`.

    Args:
        name: one of `BENCHMARKS`.
        record: the record.
        where: the record's file and line, for errors.

    Returns:
        Fields of `Example`.

    Raises:
        DataError: a field is missing or has a wrong value.
    """
    needs = BENCHMARKS[name].needs
    for field in needs:
        if record.get(field) is None:
            raise DataError(
                f"{where}: field {field!r} is missing (a record of the form {name!r} needs "
                f"{', '.join(needs)}; this one has: {names_in(record)})"
            )
    return BENCHMARKS[name].convert(record, where)


def _boolq(record: Record, where: str) -> Fields:
    """BoolQ without its passage, with the prompt of LLM-Adapters."""
    if not isinstance(record["answer"], bool):
        raise DataError(
            f"{where}: field 'answer' must be true or false, got {shown(record['answer'])}"
        )
    question = _text(record, "question", where)
    return _answered(
        f"Please answer the following question with true or false, question: {question}?\n\n"
        "Answer format: true/false",
        str(record["answer"]).lower(),
    )


def _piqa(record: Record, where: str) -> Fields:
    """PIQA: `label` starts at 0; each solution is a paragraph."""
    choices = [_text(record, name, where) for name in ("sol1", "sol2")]
    index = _index(record, "label", len(choices), 0, where)
    question = _SOLUTION + _text(record, "goal", where)
    return _choice(question, "solution", choices, index, gap="\n\n")


def _social_i_qa(record: Record, where: str) -> Fields:
    """SocialIQA: `label` starts at 1."""
    choices = [_text(record, name, where) for name in ("answerA", "answerB", "answerC")]
    index = _index(record, "label", len(choices), 1, where)
    question = f"{_text(record, 'context', where)} {_text(record, 'question', where)}"
    return _choice(_QUESTION + question, "answer", choices, index)


def _arc(record: Record, where: str) -> Fields:
    """ARC: three to five choices, labelled by letters or numbers."""
    return _labelled(record, "question", where)


def _openbookqa(record: Record, where: str) -> Fields:
    """OpenBookQA, without its facts."""
    return _labelled(record, "question_stem", where)


def _hellaswag(record: Record, where: str) -> Fields:
    """HellaSwag: `label` is a number as text, from 0."""
    choices = _texts(record["endings"], "endings", where)
    index = _index(record, "label", len(choices), 0, where)
    context = f"{_text(record, 'activity_label', where)}: {_text(record, 'ctx', where)}"
    return _choice(_ENDING + context, "ending", choices, index)


def _winogrande(record: Record, where: str) -> Fields:
    """WinoGrande: `answer` is a number as text, from 1; the options and the format share a line."""
    choices = [_text(record, name, where) for name in ("option1", "option2")]
    index = _index(record, "answer", len(choices), 1, where)
    question = _BLANK + _text(record, "sentence", where)
    return _choice(question, "option", choices, index, end=" ")


def _gsm8k(record: Record, where: str) -> Fields:
    """GSM8K: `####` in the solution becomes the marker of the scorer `number`."""
    solution = _text(record, "answer", where)
    if "####" not in solution:
        raise DataError(f"{where}: field 'answer' must end in '#### NUMBER', got {shown(solution)}")
    return {
        "prompt": f"{_text(record, 'question', where)}\n{_STEPS}\n",
        "target": solution.replace("####", "The final answer is:"),
        "answer": solution.rpartition("####")[2].strip(),
    }


def _humaneval(record: Record, where: str) -> Fields:
    """HumanEval: the prompt is the function's signature, and the tests define `check(candidate)`.

    `canonical_solution`, if there is one, becomes the target.
    """
    prompt = _text(record, "prompt", where)
    entry_point = _text(record, "entry_point", where)
    tests = _text(record, "test", where)
    if not definition(entry_point).search(prompt):
        raise DataError(
            f"{where}: field 'prompt' must hold the head of the function {entry_point!r} (its "
            f"'def' line, up to where the body begins)"
        )
    if not re.search(r"^def check\(", tests, re.M):
        raise DataError(f"{where}: field 'test' must define check(candidate), with assertions")
    solution = _optional(record, "canonical_solution", where)
    target = solution and f"{prompt.strip()}\n{solution.rstrip()}"
    return {
        "prompt": f"Complete this Python function:\n\n{prompt.strip()}\n",
        "target": target and f"```python\n{target}\n```",
        "template": _optional(record, "task_id", where),
        "check": {"prompt": prompt, "entry_point": entry_point, "tests": tests},
    }


def _mbpp(record: Record, where: str) -> Fields:
    """MBPP (sanitized): the task in words, and its tests, which show the function's name."""
    tests = _texts(record["test_list"], "test_list", where)
    head = _tested_function(_text(record, "code", where), tests, where)
    imports = _texts(record.get("test_imports") or [], "test_imports", where)
    # The assertions call the function by its name.
    body = [f"{head.name} = candidate", *tests]
    check = [*imports, "def check(candidate):", *(textwrap.indent(line, "    ") for line in body)]
    return {
        "prompt": f"{_text(record, 'prompt', where).strip()}\nThe Python code must pass these "
        "tests:\n\n" + "\n".join(tests) + "\n",
        "target": f"```python\n{record['code'].strip()}\n```",
        "template": f"mbpp/{_optional(record, 'task_id', where)}",
        "check": {
            "prompt": f"def {head.name}({ast.unparse(head.args)}):\n",
            "entry_point": head.name,
            "tests": "\n".join(check) + "\n",
        },
    }


def _tested_function(code: str, tests: Sequence[str], where: str) -> ast.FunctionDef:
    """Return the function of the reference solution that the first test calls."""
    fault = python_fault(code)
    if fault:
        raise DataError(f"{where}: field 'code' is not Python: {fault}")
    functions = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    for node in reversed(functions):
        if re.search(rf"\b{node.name}\s*\(", tests[0] if tests else ""):
            return node
    raise DataError(f"{where}: field 'test_list': the first test calls no function of 'code'")


def _xstest(record: Record, where: str) -> Fields:
    """XSTest: the model should answer a safe prompt, and refuse its unsafe contrast."""
    answers = {"safe": COMPLY, "unsafe": REFUSE}
    label = record["label"]
    if not isinstance(label, str) or label not in answers:
        raise DataError(f"{where}: field 'label': {shown(label)} (allowed: {', '.join(answers)})")
    fields = {
        "prompt": _text(record, "prompt", where).strip(),
        "target": "",
        "answer": answers[label],
    }
    kind = _optional(record, "type", where)
    return fields | ({"kind": kind} if kind else {})


def _harmbench(record: Record, where: str) -> Fields:
    """HarmBench: a behaviour, after its context if it has one; the model should refuse all."""
    behaviour = _text(record, "Behavior", where).strip()
    context = _optional(record, "ContextString", where).strip()
    return {
        "prompt": f"{context}\n\n---\n\n{behaviour}" if context else behaviour,
        "target": "",
        "answer": REFUSE,
        "kind": _text(record, "SemanticCategory", where),
    }


def _labelled(record: Record, question: str, where: str) -> Fields:
    """A question with `choices` `{"text": […], "label": […]}` whose `answerKey` is a label."""
    choices = record["choices"]
    if not isinstance(choices, Mapping) or not {"text", "label"} <= choices.keys():
        raise DataError(
            f"{where}: field 'choices' must hold 'text' and 'label', got {shown(choices)}"
        )
    texts = _texts(choices["text"], "choices.text", where)
    labels = _texts(choices["label"], "choices.label", where)
    key = record["answerKey"]
    if key not in labels or len(labels) != len(texts):
        raise DataError(
            f"{where}: field 'answerKey': {shown(key)} names none of the {len(texts)} choices "
            f"(allowed: {', '.join(labels)}); take a split that has answers"
        )
    return _choice(_QUESTION + _text(record, question, where), "answer", texts, labels.index(key))


def _choice(
    question: str, word: str, choices: Sequence[str], index: int, gap: str = " ", end: str = "\n\n"
) -> Fields:
    """Return the fields of a multiple-choice question; the answer is `word` and a number from 1."""
    listed = gap.join(f"{word.title()}{n}: {text}" for n, text in enumerate(choices, start=1))
    allowed = "/".join(f"{word}{n + 1}" for n in range(len(choices)))
    prompt = f"{question}\n\n{listed}{end}Answer format: {allowed}"
    return _answered(prompt, f"{word}{index + 1}")


def _answered(prompt: str, answer: str) -> Fields:
    """Return the fields of a question with its answer, in the target's words of LLM-Adapters."""
    return {"prompt": prompt, "target": f"the correct answer is {answer}", "answer": answer}


def _index(record: Record, name: str, count: int, first: int, where: str) -> int:
    """Return the index of the right choice, from 0; the record counts choices from `first`."""
    allowed = [str(first + n) for n in range(count)]
    value = record[name]
    number = isinstance(value, (int, str)) and not isinstance(value, bool)
    if not number or str(value) not in allowed:
        raise DataError(
            f"{where}: field {name!r}: {shown(value)} names no choice "
            f"(allowed: {', '.join(allowed)}); take a split that has answers"
        )
    return allowed.index(str(value))


def _text(record: Record, name: str, where: str) -> str:
    """Return a field that must be text."""
    value = record.get(name)
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} must be text, got {shown(value)}")
    return storable(value, f"field {name!r}", where)


def _optional(record: Record, name: str, where: str) -> str:
    """Return a field as text; empty if it is null or missing."""
    value = record.get(name)
    return "" if value is None else text_of(value, f"field {name!r}", where)


def _texts(value: Any, name: str, where: str) -> list[str]:
    """Return a value that must be a list of texts."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{where}: field {name!r} must be a list of texts, got {shown(value)}")
    return [storable(item, f"field {name!r}", where) for item in value]


BENCHMARKS: dict[str, Benchmark] = {
    "boolq": Benchmark(_boolq, ("question", "answer")),
    "piqa": Benchmark(_piqa, ("goal", "sol1", "sol2", "label")),
    "social-i-qa": Benchmark(
        _social_i_qa, ("context", "question", "answerA", "answerB", "answerC", "label")
    ),
    "arc": Benchmark(_arc, ("question", "choices", "answerKey")),
    "openbookqa": Benchmark(_openbookqa, ("question_stem", "choices", "answerKey")),
    "hellaswag": Benchmark(_hellaswag, ("activity_label", "ctx", "endings", "label")),
    "winogrande": Benchmark(_winogrande, ("sentence", "option1", "option2", "answer")),
    "gsm8k": Benchmark(_gsm8k, ("question", "answer")),
    "humaneval": Benchmark(_humaneval, ("prompt", "entry_point", "test")),
    "mbpp": Benchmark(_mbpp, ("prompt", "code", "test_list")),
    "xstest": Benchmark(_xstest, ("prompt", "label")),
    "harmbench": Benchmark(_harmbench, ("Behavior", "SemanticCategory")),
}
