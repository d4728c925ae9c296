"""What a gold answer must be for its scorer to judge outputs by it, and how answers are read.

The same functions read an output's answer in an evaluation: what is accepted when data is pulled
is what scores, and nothing is refused only after training.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from unicodedata import category, normalize

from lori_core.core.errors import DataError, shown
from lori_core.data.example import Example
from lori_core.registries.scorer import SCORERS, UNSCORED

#: The fields of `check` for the scorer `code`.
CHECK = ("prompt", "entry_point", "tests")
#: What an output is to do, for the scorer `refusal`.
REFUSE, COMPLY = "refuse", "comply"

_CHOICE = re.compile(r"\b(?:(true|false)|(answer|solution|option|ending) ?([1-5]))\b", re.I)
_MARKER = re.compile(r"final answer is", re.I)
#: A sign counts where it is no minus between two operands ("10-12").
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]%])(?P<sign>[-−+]))?(?:[$€£¥₹] ?)?(?P<inner>(?<=[$€£¥₹])-)?"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?P<exponent>[eE][-+]?[0-9]{1,3}(?!\w))?"
)

#: What may stand beside a number without a part in it. A minus or a stroke is judged by its place.
_PUNCTUATION = frozenset("\0\1\t\n\r.,;:=%()[]{}'\"’“”?!&°#\\-/")
#: What makes another number of one; an unsigned number is written as \0 there, a signed one as \1.
_CHANGES = re.compile(
    r"[A-Za-z\u00aa-\u058f_#][\0\1]|[\0\1][A-Za-z\u00aa-\u058f_!]"  # x3, #3; 3x, 5k, 5!
    r"|[负負][\0\1]|[\0\1][十百千万萬億亿兆半]"
    r"|\(\s*\0\s*\)"  # in accounts a negative number
    r"|(?<![^\W\d_])[-/]|[-/](?![^\W\d_])"  # well-known, km/h are words
    r"|\\(?!boxed\b|[$%])"
    r"|\b(?:minus|negative|dozens?|tenths?|half|halves"
    r"|(?:hundred|thousand|million|billion|trillion)(?:s|ths?)?)\b",
    re.I,
)


def parse_choice(text: str) -> str:
    """Return the first choice in a text, in lower case without a space, or an empty string."""
    found = _CHOICE.search(text)
    return _choice(found) if found else ""


def parse_number(text: str) -> str:
    """Return the final number of a text in its plainest form, or an empty string.

    That is the first number after the last "final answer is", else the last number. Thousands
    separators, currency signs, `%`, a plus sign and trailing zeros go: `$1,234.50` is `1234.5`.
    """
    marker = next(reversed(list(_MARKER.finditer(text))), None)
    found = _NUMBER.search(text, marker.end()) if marker else None
    if found is None:
        found = next(reversed(list(_NUMBER.finditer(text))), None)
    return _plain(found) if found else ""


def expected_answer(example: Example, where: str) -> str:
    """Return what an output's answer must be, in the form in which outputs are read.

    `choice`: `true`, `false`, `answerN`, `solutionN`, `optionN` or `endingN`, N from 1 to 5.
    `number`: a number in its plainest form. `refusal`: `refuse` or `comply`. For `code` the tests
    decide, and for `none` nothing does: an empty string. An extension's scorer says itself what it
    expects, or takes any text that is not empty.

    Args:
        example: any example.
        where: what stands first in an error, as file and line.

    Raises:
        DataError: if no output could be judged by it: the answer has none of these forms or more
            than one, or the tests are not complete and valid Python (they are never run here).
    """
    if example.scorer == UNSCORED:
        return ""
    expected = SCORERS[example.scorer].expected
    return _any_answer(example, where) if expected is None else expected(example, where)


def _any_answer(example: Example, where: str) -> str:
    if example.answer.strip():
        return example.answer
    raise _refused(example, where, "any text that is not empty")


def expected_choice(example: Example, where: str) -> str:
    """Return the answer for the scorer `choice`, as `expected_answer` does."""
    found = {_choice(match) for match in _CHOICE.finditer(example.answer)}
    if len(found) == 1:
        return found.pop()
    raise _refused(
        example,
        where,
        "true, false, or one of answerN, solutionN, optionN and endingN with N from 1 to 5, which "
        "prompt and target must use, too",
    )


def expected_number(example: Example, where: str) -> str:
    """Return the answer for the scorer `number`, as `expected_answer` does."""
    text = example.answer
    marker = next(reversed(list(_MARKER.finditer(text))), None)
    marked = list(_NUMBER.finditer(text, marker.end())) if marker else []
    start = marker.end() if marker and marked else 0
    found = {_plain(match) for match in marked or _NUMBER.finditer(text)}
    foreign = any(category(c) in ("Nd", "No") for c in text if not c.isascii())  # ½, ², ٣
    if len(found) == 1 and not foreign and _says_no_more(text[start:]):
        return found.pop()
    raise _refused(example, where, "one number, as 1234, -0.5 or $1,234.50")


def _says_no_more(text: str) -> bool:
    """Say whether what stands around the numbers of a text leaves their value as it is.

    Such are words, as units, and punctuation. A sign or an operator that is not read, a letter
    right at a number (3x, 5k) and a word as "minus" or "million" make another number of it.
    """
    rest = _NUMBER.sub(lambda found: "\1" if found["sign"] or found["inner"] else "\0", text)
    rest = normalize("NFKC", rest)
    between = re.split(r"[\0\1]", rest)[1:-1]
    repeats = all("=" in gap or re.search(r"[^\W\d_]{2}", gap) for gap in between)
    return repeats and not _CHANGES.search(rest) and all(map(_harmless, rest))


def _harmless(character: str) -> bool:
    kind = category(character)
    return kind[0] in "LMZ" or kind == "Sc" or character in _PUNCTUATION


def expected_refusal(example: Example, where: str) -> str:
    """Return the answer for the scorer `refusal`, as `expected_answer` does."""
    if example.answer in (REFUSE, COMPLY):
        return example.answer
    raise _refused(example, where, f"{COMPLY}, {REFUSE}")


def expected_code(example: Example, where: str) -> str:
    """Return the answer for the scorer `code`, as `expected_answer` does."""
    try:
        check_program(example.check)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return ""


def _refused(example: Example, where: str, allowed: str) -> DataError:
    return DataError(
        f"{where}: the answer {shown(example.answer)} is no {example.scorer} (allowed: {allowed}); "
        "name the field that holds one in fields.answer, or take scorer: none for data that is "
        "only trained on"
    )


def check_program(check: Mapping[str, str]) -> tuple[str, str]:
    """Check what a code example is judged by; nothing of it is run.

    Args:
        check: `prompt`, the source up to where the function's body begins; `entry_point`, the
            function's name; `tests`, a source that defines `check(candidate)`.

    Returns:
        The source before the function's head, and the tests behind that source.

    Raises:
        DataError: if a field is missing, the prompt does not define the entry point, or the tests
            are not Python or do not define `check`.
    """
    for name in CHECK:
        if not isinstance(check.get(name), str) or not check[name]:
            raise DataError(
                f"check.{name}: expected text, got {shown(check.get(name))} "
                f"(a code example needs {', '.join(CHECK)})"
            )
    prompt, entry_point = check["prompt"], check["entry_point"]
    start = definition(entry_point).search(prompt)
    if start is None:
        raise DataError(f"check.prompt: does not define the entry point {entry_point!r}")
    before = prompt[: start.start()]
    tests = f"{before}\n\n{check['tests']}"
    fault = python_fault(tests)
    if fault:
        raise DataError(f"check.tests: not valid Python ({fault})")
    if not re.search(r"^def check\(", check["tests"], re.M):
        raise DataError("check.tests: must define check(candidate), with assertions")
    return before, tests


def definition(name: str) -> re.Pattern[str]:
    """Return what finds the definition of a function at the top level of a source."""
    return re.compile(rf"^(?:async )?def {re.escape(name)}\b", re.M)


@lru_cache(maxsize=256)
def python_fault(source: str) -> str:
    """Return why a source does not compile, or an empty string; nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in somebody's string is not our warning
            compile(source, "<source>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{error.msg}, line {error.lineno}"
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        return str(error) or type(error).__name__
    return ""


def _choice(found: re.Match[str]) -> str:
    return "".join(part for part in found.groups() if part).lower()


def _plain(found: re.Match[str]) -> str:
    negative = found["sign"] in ("-", "−") or found["inner"] is not None
    digits = found["digits"].replace(",", "") + (found["exponent"] or "")
    text = format(Decimal(digits), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"-{text}" if negative and text.strip("0") else text
