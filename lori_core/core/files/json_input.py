"""Read untrusted JSON within limits of depth, digits and number of values.

NaN, infinity and duplicate keys, which Python's reader accepts, are refused.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

#: The deepest allowed nesting of lists and objects.
MOST_DEPTH = 100
#: The most digits of an integer.
MOST_DIGITS = 4300
#: The most values in all lists and objects of a text; a longer text may have one for each
#: `BYTES_PER_VALUE` characters.
MOST_VALUES = 500_000
BYTES_PER_VALUE = 8
#: A string, also an unterminated one.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.S)
_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.S)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_STEPS = bytes.maketrans(b"[{]}", b"\2\2\0\0")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class JSONError(ValueError):
    """A text is not JSON, or exceeds a limit.

    Attributes:
        line: the line of the fault, counted from 1.
    """

    def __init__(self, fault: str, line: int = 1) -> None:
        super().__init__(fault)
        self.line = line


def loads(text: str | bytes) -> Any:
    """Read JSON from text, or from bytes in UTF-8.

    Raises:
        JSONError: the text is not valid JSON, or exceeds a limit.
    """
    if isinstance(text, bytes):
        text = _decoded(text)
    _check_size(text)
    try:
        return json.loads(
            text,
            parse_constant=_refused,
            parse_float=_float,
            parse_int=_int,
            object_pairs_hook=_object,
        )
    except _TokenError as fault:
        place = text.find(fault.token)
        raise JSONError(str(fault), _line(text, place)) from None
    except json.JSONDecodeError as fault:
        raise JSONError(f"not valid JSON ({fault.msg})", fault.lineno) from None
    except RecursionError:
        raise JSONError("not valid JSON (nested too deep)") from None


def check_text(text: str, value: Any) -> None:
    """Refuse unpaired surrogates in the value that `loads` returned for a text.

    Raises:
        JSONError: a string contains an unpaired surrogate, which cannot be encoded as UTF-8.
    """
    if _SURROGATE.search(text) is None:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        half = f"\\u{ord(fault.object[fault.start]):04x}"
        place = text.lower().find(half)
        raise JSONError(
            f"half a surrogate pair ({half}), which is no text; write the whole pair, or remove it",
            _line(text, place),
        ) from None


class _TokenError(ValueError):
    """A fault at the first occurrence of a token."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as fault:
        raise JSONError(
            f"not UTF-8 text (byte {fault.start})", content.count(b"\n", 0, fault.start) + 1
        ) from None


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, max(0, place)) + 1


def _check_size(text: str) -> None:
    """Refuse a text that is nested too deep or has too many values, before it is parsed."""
    opened = text.count("[") + text.count("{")
    most = max(MOST_VALUES, len(text) // BYTES_PER_VALUE)
    if opened <= MOST_DEPTH and opened + text.count(",") <= most:
        return
    outside = _STRING.sub(b"", text.encode("utf-8", "surrogatepass"))
    values = outside.count(b",") + outside.count(b"[") + outside.count(b"{")
    if values > most:
        raise JSONError(f"{values:,} values, too many to be read (at most {most:,})")
    steps = outside.translate(_STEPS, _ALL_BUT_BRACKETS)
    deepest = max(accumulate(step - 1 for step in steps), default=0)
    if deepest > MOST_DEPTH:
        raise JSONError(
            f"lists and objects are nested {deepest} deep, too deep to be read (at most "
            f"{MOST_DEPTH})",
            _deepest_line(text),
        )


def _deepest_line(text: str) -> int:
    depth = deepest = place = 0
    for token in _BRACKET.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > deepest:
            deepest, place = depth, token.start()
    return _line(text, place)


def _refused(text: str) -> float:
    raise _TokenError(
        f"not valid JSON ({_short(text)} is no number in JSON; null stands for a missing one)", text
    )


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refused(text)


def _int(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise _TokenError(f"an integer of more than {MOST_DIGITS} digits; write it as text", text)
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _TokenError(
            f"an object has the key {_short(repr(duplicate))} twice, and which of them counts is "
            "not said; remove one",
            json.dumps(duplicate, ensure_ascii=False),
        )
    return result


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
