"""Validate gold answers for their scorers, and extract answers from texts.

`lori pull` and the evaluation use the same functions, so an answer that a scorer cannot use is
refused when data is pulled and not only after training.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from unicodedata import category, normalize

from lori_core.core.errors import DataError, shown
from lori_core.data.example import Example
from lori_core.registries.scorer import SCORERS, UNSCORED

#: The fields of `check` for the scorer `code`.
CHECK = ("prompt", "entry_point", "tests")
#: The answers of the scorer `refusal`.
REFUSE, COMPLY = "refuse", "comply"

_CHOICE = re.compile(r"\b(?:(true|false)|(answer|solution|option|ending) ?([1-5]))\b", re.I)
_MARKER = re.compile(r"final answer is", re.I)
#: A number; a sign belongs to it unless it is a minus between two operands ("10-12").
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]%])(?P<sign>[-−+]))?(?:[$€£¥₹] ?)?(?P<inner>(?<=[$€£¥₹])-)?"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?P<exponent>[eE][-+]?[0-9]{1,3}(?!\w))?"
)

#: Characters that may stand around a number without changing it. `_CHANGES` judges a minus or a
#: slash by its place.
_PUNCTUATION = frozenset("\0\1\t\n\r.,;:=%()[]{}'\"’“”?!&°#\\-/")
#: Text that changes a number's value; \0 stands for an unsigned number, \1 for a signed one.
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

#: What may stand between an operator and the number after it.
_BEFORE = (
    r"(?:[\s({\[$€£¥₹*_~<+−-]"
    r"|\\(?:boxed|text(?:bf)?|math\w+|[dtc]?frac|sqrt|left|quad|[ ,;:!($\[]))*$"
)
#: The end of the text between two sides of an equation.
_EQUALS = re.compile(rf"(?:[=≈]|\\approx|\bequals|\bis equal to){_BEFORE}", re.I)
#: The end of the text between two numbers of an expression; `*` may also be Markdown.
_OPERATOR = re.compile(
    rf"(?:[-+−–/×÷·∙^]|^\*\*?(?![\s*])|(?<=[\s)\]}}])\*(?!\*)|\\(?:times|cdot|div)|\}}\s*\{{|% of"
    rf"|\b(?:x|plus|minus|times|divided by|multiplied by|to the power of)\b){_BEFORE}",
    re.I,
)
#: Text between two numbers of which the second is no part of what the first begins.
_APART = re.compile(
    r"\n|[,;:]\s|[.!?](?:\s|$)|\b(?:and|or|so|since|because|but|then|where|as|if)\b", re.I
)
#: What divides the digits of one number, but not for `_NUMBER`: 1'000, 1 000, 1{,}000, 1,00,000; or
#: a mixed number, 1 1/2.
_DIVIDED = re.compile(
    r"[.,](?=[0-9])|(?:\{,\}|\\[ ,;:!]|['’ \u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))"
    r"| (?=[0-9]+/[0-9])"
)
#: The second number after it is a divisor or an exponent.
_DIVISOR = re.compile(r" ?(?:/|\^|\*\*|\}\{) ?[({]?-?")
#: The end of a text that makes the number after it another one.
_CHANGED_BEFORE = re.compile(
    r"(?:√|\\(?:[dtc]?frac|sqrt)|\b(?:minus|negative|half|twice|root)(?: of)?(?: the)?)"
    r"[\s({$€£¥₹]*$",
    re.I,
)
#: The beginning of a text that makes the number before it another one.
_CHANGED_AFTER = re.compile(
    r"(?:[kKMB]|bn|mn)\b"
    r"|[ \u00a0~*-]*(?i:(?:and|&) (?:an?|one)[ -]half|halves|dozens?|squared|cubed|lakhs?|crores?"
    r"|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth)s"
    r"|(?:hundred|thousand|million|billion|trillion)(?:s|ths?)?)\b"
    r"| ?[十百千万萬億亿兆半²³¹⁰⁴-⁹¼-¾⅐-⅞]"
)


def parse_choice(text: str) -> str:
    """Return the first choice in a text, in lower case without space; empty if there is none."""
    match = _CHOICE.search(text)
    return _choice(match) if match else ""


def parse_number(text: str) -> str:
    """Return the final number of a text in canonical form; empty if there is none.

    That is the first number after the last "final answer is", else the last number. Of an equation
    after the marker (`3 + 4 = 7`) it is the last side that is a number. It is empty where text
    makes it another number, as in `1/2`, `10^3`, `2 million` or `negative 5`; units, currency signs
    and `%` do not. The canonical form has no thousands separators, currency sign, `%`, plus sign or
    trailing zeros: `$1,234.50` becomes `1234.5`.
    """
    marker = next(reversed(list(_MARKER.finditer(text))), None)
    marked = list(_NUMBER.finditer(text, marker.end())) if marker else []
    if marker and marked:
        return _of_equation(text, marker.end(), marked)
    numbers = list(_NUMBER.finditer(text))
    if not numbers or (marker and _foreign(text[marker.end() :])):
        return ""
    start = numbers[-2].end() if len(numbers) > 1 else 0
    if start and _DIVISOR.fullmatch(text, start, numbers[-1].start("digits")):
        return ""
    return _unchanged(text, start, numbers[-1])


def _of_equation(text: str, start: int, numbers: Sequence[re.Match[str]]) -> str:
    """Return the last side of an equation that is a number; empty if none is.

    Args:
        text: the text.
        start: where the equation begins.
        numbers: all numbers from there on; those of the equation come first.
    """
    sides = [_unchanged(text, start, numbers[0])]
    for number, after in pairwise(numbers):
        end, begin = number.end(), after.start("digits")
        divider = _DIVIDED.match(text, end)
        if divider and divider.end() == begin:
            sides[-1] = ""
        elif _APART.search(text, end, begin):
            break
        elif _EQUALS.search(text, end, begin):
            sides.append(_unchanged(text, end, after))
        elif _OPERATOR.search(text[end:begin]):
            sides[-1] = ""
        else:
            break
    return next((side for side in reversed(sides) if side), "")


def _unchanged(text: str, start: int, number: re.Match[str]) -> str:
    """Return a number in canonical form; empty if the text around it makes it another number.

    Args:
        text: the text.
        start: where the text before the number begins.
        number: a match of `_NUMBER`.
    """
    before = text[start : number.start("digits")]
    changed = _CHANGED_BEFORE.search(before) or _CHANGED_AFTER.match(text, number.end())
    return "" if changed else _canonical(number)


def _foreign(text: str) -> bool:
    """Return whether a text has digits that are not ASCII: ½, ², ٣."""
    return any(category(c) in ("Nd", "No") for c in text if not c.isascii())


def expected_answer(example: Example, where: str) -> str:
    """Return the gold answer in the form that is compared with answers extracted from outputs.

    `choice`: `true`, `false`, `answerN`, `solutionN`, `optionN` or `endingN`, N from 1 to 5.
    `number`: a number in canonical form. `refusal`: `refuse` or `comply`. `code` and `none`: an
    empty string, as `code` is judged by tests and `none` is not judged. An extension's scorer
    validates the answer itself, or accepts any text that is not empty.

    Args:
        example: any example.
        where: the example's file and line, for errors.

    Raises:
        DataError: the answer has no or more than one of these forms, or the tests are incomplete or
            not valid Python (they are never run here).
    """
    if example.scorer == UNSCORED:
        return ""
    expected = SCORERS[example.scorer].expected
    return _any_answer(example, where) if expected is None else expected(example, where)


def _any_answer(example: Example, where: str) -> str:
    """Return an answer that is not empty, for an extension's scorer that does not check it."""
    if example.answer.strip():
        return example.answer
    raise _refused(example, where, "any text that is not empty")


def expected_choice(example: Example, where: str) -> str:
    """Return the answer for the scorer `choice`, as `expected_answer` does."""
    choices = {_choice(match) for match in _CHOICE.finditer(example.answer)}
    if len(choices) == 1:
        return choices.pop()
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
    numbers = {_canonical(match) for match in marked or _NUMBER.finditer(text)}
    if len(numbers) == 1 and not _foreign(text) and _leaves_value(text[start:]):
        return numbers.pop()
    raise _refused(example, where, "one number, as 1234, -0.5 or $1,234.50")


def _leaves_value(text: str) -> bool:
    """Return whether the text around the numbers leaves their value unchanged.

    Words such as units, and punctuation, do. A sign or operator that `_NUMBER` does not match,
    a letter next to a number (3x, 5k) and words such as "minus" or "million" change the value.
    """
    rest = _NUMBER.sub(lambda match: "\1" if match["sign"] or match["inner"] else "\0", text)
    rest = normalize("NFKC", rest)
    between = re.split(r"[\0\1]", rest)[1:-1]
    repeats = all("=" in gap or re.search(r"[^\W\d_]{2}", gap) for gap in between)
    return repeats and not _CHANGES.search(rest) and all(map(_harmless, rest))


def _harmless(character: str) -> bool:
    """Return whether a character may stand beside a number without changing it."""
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
    """Return the error for an answer that its scorer cannot use."""
    return DataError(
        f"{where}: the answer {shown(example.answer)} is no {example.scorer} (allowed: {allowed}); "
        "name the field that holds one in fields.answer, or take scorer: none for data that is "
        "only trained on"
    )


def check_program(check: Mapping[str, str]) -> tuple[str, str]:
    """Check the tests of a code example without running them.

    Args:
        check: `prompt`, the source up to the function's body; `entry_point`, the function's name;
            `tests`, a source that defines `check(candidate)`.

    Returns:
        The source before the function's definition, and that source followed by the tests.

    Raises:
        DataError: a field is missing, the prompt does not define the entry point, or the tests are
            not valid Python or do not define `check`.
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
    """Return the pattern of a function's definition at the top level of a source."""
    return re.compile(rf"^(?:async )?def {re.escape(name)}\b", re.M)


@lru_cache(maxsize=256)
def python_fault(source: str) -> str:
    """Return why a Python source does not compile, or an empty string; it is not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape "\d" in the source
            compile(source, "<source>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{error.msg}, line {error.lineno}"
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        return str(error) or type(error).__name__
    return ""


def _choice(match: re.Match[str]) -> str:
    """Return a match of `_CHOICE` in lower case without space."""
    return "".join(part for part in match.groups() if part).lower()


def _canonical(match: re.Match[str]) -> str:
    """Return a match of `_NUMBER` in canonical form."""
    negative = match["sign"] in ("-", "−") or match["inner"] is not None
    digits = match["digits"].replace(",", "") + (match["exponent"] or "")
    text = format(Decimal(digits), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"-{text}" if negative and text.strip("0") else text
