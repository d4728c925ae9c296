"""From the text a model wrote to the program that is run."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping

from lori_core.data.answers import check_program, definition, python_fault
from lori_core.evaluation.sandbox.sandbox import Program

_PYTHON_FENCE = re.compile(r"```[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)(?:```|\Z)", re.S | re.I)
_ANY_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.S)
_BODY = re.compile(r"\s*^(?:  +|\t)\S", re.M)
#: HumanEval's stop sequences: where a continuation of a function's body is over.
_STOP = re.compile(r"\n(?:def |async def |class |if __name__|print|```|#|@)")
_TOP_LEVEL = re.compile(r"^(?=\S)", re.M)
_CODE_LINE = re.compile(r"^(?:(?:async )?def\b|class\b|from\b|import\b|@)", re.M)


def extract_code(output: str, check: Mapping[str, str]) -> Program:
    """Return the program that an output stands for, with its tests.

    The code is the first ```python fence, else the first fence (an unclosed one too), else the
    whole output. If it defines the entry point it is taken as it is, after the prompt's text up
    to the entry point (imports, helper functions). Else it continues the prompt: the body, cut
    where a new top-level statement begins. The tests see the prompt's imports and helpers, never
    the output's.

    Of several readings (prose around the code, a body without its indentation) the first that is
    valid Python counts; if none is, the first, and the program fails.

    Raises:
        DataError: as `check_program`.
    """
    before, tests = check_program(check)
    prompt, entry_point = check["prompt"], check["entry_point"]
    code = _fenced(output.replace("\r\n", "\n"))
    whole = definition(entry_point).search(code) is not None
    readings = _definitions(before, code) if whole else _continuations(prompt, code)
    candidate = _first_valid(list(readings))
    return Program(candidate, tests, entry_point)


def _fenced(output: str) -> str:
    if _BODY.match(output):  # it goes on inside a fence that the prompt opened
        return output
    found = _PYTHON_FENCE.search(output) or _ANY_FENCE.search(output)
    return found.group(1) if found else output


def _definitions(before: str, code: str) -> Iterator[str]:
    """The code whole; without prose before it; without prose after it, too."""
    yield _behind(before, code)
    first = _CODE_LINE.search(code)
    code = code[first.start() :] if first else code
    yield _behind(before, code)
    for cut in reversed([found.start() for found in _TOP_LEVEL.finditer(code)][1:]):
        yield _behind(before, code[:cut])


def _behind(before: str, code: str) -> str:
    """Return a source of both; the code's `from __future__` imports must stand before all else."""
    lines = code.split("\n")
    cut = _last_future_line(code)
    return "\n".join([*lines[:cut], before, *lines[cut:]])


def _last_future_line(code: str) -> int:
    """Return the number of the last line of `from __future__` imports; 0 if it is not Python."""
    if "__future__" not in code or python_fault(code):
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `python_fault`
        statements = ast.parse(code).body
    return max(
        (
            node.end_lineno or 0
            for node in statements
            if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        ),
        default=0,
    )


def _continuations(prompt: str, code: str) -> Iterator[str]:
    """The body as it is; with its first line indented; all indented; without prose after it."""
    code = code.lstrip("\n")
    stop = _STOP.search(f"\n{code}")
    body = code[: max(stop.start() - 1, 0)] if stop else code
    gap = "" if prompt.endswith("\n") else "\n"
    if not prompt.endswith("\n"):
        yield prompt + body  # the prompt may end inside a line
    yield prompt + gap + body
    yield prompt + gap + "    " + body.lstrip(" ")
    yield prompt + gap + textwrap.indent(body, "    ")
    for form in (body, "    " + body.lstrip(" ")):
        prose = _TOP_LEVEL.search(form, 1)
        if prose:
            yield prompt + gap + form[: prose.start()]


def _first_valid(readings: list[str]) -> str:
    return next((reading for reading in readings if not python_fault(reading)), readings[0])
