"""Judge answers to GSM8K's questions as PEFT's comparison does.

The final answer follows a phrase of MetaMathQA (`The answer is`) or of GSM8K (`####`). Two answers
are equal if both are numbers or fractions of the same value, otherwise if their texts are equal.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from lori_core.core.errors import DataError

#: The phrases before a final answer. The first that the text contains decides, wherever it stands.
PHRASES = (
    "The answer is: ",
    "The answer is ",
    "The final answer is: ",
    "The final answer is ",
    "#### ",
)


def final_answer(text: str) -> str | None:
    """Return the text after the last occurrence of the answer's phrase; None without a phrase.

    Only its first line counts, without space, `.`, `!`, `?`, `$` and `%` at both ends.
    """
    text = text.strip().rstrip(".!?")
    phrase = next((phrase for phrase in PHRASES if phrase in text), None)
    if phrase is None:
        return None
    line, _, _ = text[text.rindex(phrase) + len(phrase) :].strip().partition("\n")
    return line.strip(" .!?$%")


def number(text: str) -> float | None:
    """Return the value of a number or of a fraction such as `20/14`; None for other texts."""
    try:
        if "/" not in text:
            return float(Decimal(text.strip()))
        above, below = (Decimal(part.strip()) for part in text.split("/"))
        return float(above / below)
    except (InvalidOperation, ArithmeticError, ValueError):
        return None


def is_right(output: str, solution: str) -> bool:
    """Return whether the final answer of an output is that of a question's solution.

    Raises:
        DataError: the solution has no final answer.
    """
    expected, given = final_answer(solution), final_answer(output)
    if expected is None:
        raise DataError(f"a solution has no final answer after '#### ': {solution[-80:]!r}")
    if given is None:
        return False
    values = number(expected), number(given)
    if None not in values:
        return values[0] == values[1]
    return values == (None, None) and expected == given
