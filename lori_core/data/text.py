"""Convert a record's fields, texts and numbers, to the texts of an example."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from textwrap import shorten
from typing import Any
from unicodedata import category, decomposition, normalize

from lori_core.config.templates import Field, read_template
from lori_core.core.errors import DataError

#: Usual keys of the text in nested records such as chats, for the hint in an error.
_USUAL = ("content", "value", "text")
#: An index into a list; nine digits are enough for any list in memory.
_INDEX = re.compile(r"[0-9]{1,9}")
#: A key that a template can name.
_KEY = re.compile(r"[^.\[\]{}]+")
#: Prefixes of the Unicode decompositions of superscripts, subscripts and fractions.
_PLACED = ("<super>", "<sub>", "<fraction>")
_INVISIBLE = frozenset(map(chr, [0x34F, 0x115F, 0x1160, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10)]))
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def fill(template: str, record: Mapping[str, Any], what: str, where: str) -> str:
    """Return a template filled with a record's fields, stripped of space at both ends.

    A null field becomes an empty text; if all fields are empty, so is the result. Numbers are
    written as in JSON.

    Args:
        template: the template; `lori_core.config.templates` describes its syntax.
        record: the record.
        what: the field of the example, for errors.
        where: the record's file and line, for errors.

    Raises:
        DataError: a field is missing, or is neither text nor a number.
    """
    parts = read_template(template)
    filled = {part: _filled(part, record, what, where) for part in parts if isinstance(part, Field)}
    if filled and not any(visible(text) for text in filled.values()):
        return ""
    return "".join(part if isinstance(part, str) else filled[part] for part in parts).strip()


def text_of(value: Any, what: str, where: str, name: str = "") -> str:
    """Return a text or a finite number as text.

    Args:
        value: the value of a record's field.
        what: the value's name for errors, as "field 'question' for 'prompt'".
        where: the record's file and line, for errors.
        name: the field as a template writes it, for the hint in an error.

    Raises:
        DataError: the value is neither text nor a finite number, or cannot be stored as UTF-8.
    """
    if isinstance(value, str):
        return storable(value, what, where)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        if not _finite(value):
            raise DataError(f"{where}: {what} is {value}, which is no number; leave the record out")
        # Converted to the builtin type, as subclasses may define another __str__.
        plain = next(kind for kind in (int, float, Decimal) if isinstance(value, kind))
        return str(plain(value))
    raise DataError(
        f"{where}: {what} is {_kind(value)}, not text or a number; {_hint(value, name)}"
    )


def _finite(value: int | float | Decimal) -> bool:
    """Return whether a number is finite; integers and decimals may exceed the range of floats."""
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, int) or math.isfinite(value)


def storable(text: str, what: str, where: str) -> str:
    """Return a text unchanged if it can be stored as UTF-8 and tokenised.

    Args:
        text: the text.
        what: its name for errors.
        where: its file and line, for errors.

    Raises:
        DataError: the text has an unpaired surrogate or a null character.
    """
    if "\0" in text:
        place = text.index("\0")
        raise DataError(f"{where}: {what}: character {place + 1} is null (\\u0000); remove it")
    half = None if text.isascii() else _SURROGATE.search(text)
    if half:
        raise DataError(
            f"{where}: {what}: character {half.start() + 1} is half a surrogate pair "
            f"(\\u{ord(half[0]):04x}), which is no text; remove it or write the whole pair"
        )
    return text


def visible(text: str) -> str:
    """Return a text without zero-width characters, and without space at both ends."""
    if text.isascii():
        return text.strip()
    return "".join(c for c in text if not _shows_nothing(c)).strip()


def comparison_key(text: str) -> str:
    """Return a form of a text that is equal for texts that look the same, ignoring case.

    Superscripts, subscripts and fractions are kept: 5² does not become 52.
    """
    if text.isascii():
        return text.casefold()
    preserved = {ord(c): f"\0{ord(c)}\0" for c in set(text) if decomposition(c).startswith(_PLACED)}
    plain = normalize("NFKC", visible(text).translate(preserved))
    return normalize("NFKC", plain.casefold())


@lru_cache(maxsize=4096)
def _shows_nothing(character: str) -> bool:
    """Return whether a character is invisible: a format character, variation selector or filler."""
    return category(character) == "Cf" or character in _INVISIBLE


def names_in(record: Mapping[Any, Any]) -> str:
    """Return the names of a record's fields for an error, on one line, truncated if long."""
    names = ", ".join(_on_a_line(str(name)) for name in record)
    return shorten(names, 300, placeholder=" …") or "nothing"


def _on_a_line(name: str) -> str:
    """Return a key with unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def value_at(field: Field, record: Mapping[str, Any], named: str, where: str) -> Any:
    """Return the value of a field of a record; a name with dots may be a path or a key.

    Args:
        field: the field.
        record: the record.
        named: the field and its purpose, for errors.
        where: the record's file and line, for errors.

    Raises:
        DataError: the field is missing.
    """
    if field.name in record:  # the name of a key may contain a dot
        return record[field.name]
    value: Any = record
    for done, step in enumerate(field.path):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            raise DataError(f"{where}: {named} is missing ({_there(value, field.path[:done])})")
    return value


def _filled(field: Field, record: Mapping[str, Any], what: str, where: str) -> str:
    """Return the text of one field of a template."""
    named = f"field {field.name!r} for {what!r}"
    value = value_at(field, record, named, where)
    if value is None and field.name in record:
        return ""
    return text_of(value, named, where, field.name)


def _there(value: Any, path: Sequence[str]) -> str:
    """Describe the part of a record at a path, for the error about a missing field."""
    name = path[0] + "".join(f"[{step}]" for step in path[1:]) if path else "the record"
    name = _on_a_line(name)
    if isinstance(value, Mapping):
        return f"{name} has: {names_in(value)}"
    return f"{name} is {_kind(value)}"


def _kind(value: Any) -> str:
    """Describe the JSON type of a value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return f"an object with {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)} items"
    return f"of the type {type(value).__name__}"


def _hint(value: Any, name: str) -> str:
    """Return a hint for a value that is not text: a template for a text inside it, if any."""
    path = name
    for _ in range(4 if name else 0):
        if isinstance(value, list) and value:
            path, value = f"{path}[0]", value[0]
        elif isinstance(value, Mapping) and value:
            texts = [key for key, held in value.items() if isinstance(held, str)]
            key = next((key for key in (*_USUAL, *texts) if key in value), next(iter(value)))
            if not _KEY.fullmatch(str(key)):
                break
            path, value = f"{path}[{key}]", value[key]
    if path != name and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return f"a template can name one part of it, as {{{_on_a_line(path)}}}"
    return "write it as text in the file, or leave the record out"
