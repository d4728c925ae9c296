"""Extraction of the program to run from a model's output."""

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
#: HumanEval's stop sequences, which end the continuation of a function's body.
_STOP = re.compile(r"\n(?:def |async def |class |if __name__|print|```|#|@)")
_TOP_LEVEL = re.compile(r"^(?=\S)", re.M)
_CODE_LINE = re.compile(r"^(?:(?:async )?def\b|class\b|from\b|import\b|@)", re.M)


def extract_code(output: str, check: Mapping[str, str]) -> Program:
    """Return the program of an output, with its tests.

    The code is the first ```python fence, otherwise the first fence (closed or not), otherwise the
    whole output. If the code defines the entry point, it is appended to the prompt's text before
    the entry point (imports, helper functions). Otherwise it continues the prompt as the body of
    the function, up to the next top-level statement. The tests see the prompt's imports and
    helpers, never the output's.

    Prose around the code or missing indentation allow several readings; the first that is valid
    Python is taken. If none is valid, the first is taken and the program fails.

    Raises:
        DataError: as `check_program`.
    """
    before, tests = check_program(check)
    prompt, entry_point = check["prompt"], check["entry_point"]
    code = _fenced(output.replace("\r\n", "\n"))
    defines_entry_point = definition(entry_point).search(code) is not None
    readings = _definitions(before, code) if defines_entry_point else _continuations(prompt, code)
    return Program(_first_valid(list(readings)), tests, entry_point)


def _fenced(output: str) -> str:
    """Return the code of the first fence, or the whole output without one."""
    if _BODY.match(output):  # the output continues inside a fence that the prompt opened
        return output
    match = _PYTHON_FENCE.search(output) or _ANY_FENCE.search(output)
    return match.group(1) if match else output


def _definitions(before: str, code: str) -> Iterator[str]:
    """Yield the whole code; then without prose before it; then also without prose after it."""
    yield _joined(before, code)
    first = _CODE_LINE.search(code)
    code = code[first.start() :] if first else code
    yield _joined(before, code)
    for cut in reversed([match.start() for match in _TOP_LEVEL.finditer(code)][1:]):
        yield _joined(before, code[:cut])


def _joined(before: str, code: str) -> str:
    """Return both sources as one, with the code's `from __future__` imports first."""
    lines = code.split("\n")
    cut = _last_future_line(code)
    return "\n".join([*lines[:cut], before, *lines[cut:]])


def _last_future_line(code: str) -> int:
    """Return the last line number of `from __future__` imports; 0 without any or if not Python."""
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
    """Yield the prompt with the body as it is; its first line indented; all lines indented; and
    without prose after it."""
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
