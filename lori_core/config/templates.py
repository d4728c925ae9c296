"""Parse the templates of a source's `fields`: text with the names of a record's fields in braces.

`{question}` is a field of the record; `{answers.text}` and `{answers[text]}` are the value of a key
in an object; `{answers[0]}` is an item of a list, counted from 0. `{{` and `}}` are literal braces.
A template without braces is the name of one field. Attributes of Python objects, conversions and
format specifications are not supported.
"""

from __future__ import annotations

import re
from functools import cache
from string import Formatter
from typing import NamedTuple

from lori_core.core.errors import shown

_PATH = re.compile(r"[^.\[\]{}]+(?:\.[^.\[\]{}]+|\[[^.\[\]{}]+\])*")
_STEP = re.compile(r"[^.\[\]]+")
_FROM_THE_END = re.compile(r"-[0-9]+")


class Field(NamedTuple):
    """A field in a template: its text, and the path of keys and indices to its value."""

    name: str
    path: tuple[str, ...]


@cache
def read_template(template: str) -> tuple[str | Field, ...]:
    """Return a template's literal texts and fields in order.

    Raises:
        ValueError: the template's syntax is invalid.
    """
    if "{" not in template and "}" not in template:
        return (_field(template, template),) if template else ()
    parts: list[str | Field] = []
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise _wrong(template, f"{error} ({{{{ and }}}} stand for braces themselves)") from None
    for text, name, specification, conversion in parsed:
        if text:
            parts.append(text)
        if name is None:
            continue
        if specification or conversion:
            raise _wrong(template, f"{{{name}}} takes no conversion (!r) and no format (:>9)")
        parts.append(_field(name, template))
    return tuple(parts)


def _field(name: str, template: str) -> Field:
    if not _PATH.fullmatch(name):
        raise _wrong(template, f"{{{name}}} is no field, as {{name}}, {{name.key}} or {{name[0]}}")
    path = tuple(_STEP.findall(name))
    if any(_FROM_THE_END.fullmatch(step) for step in path[1:]):
        raise _wrong(template, f"{{{name}}} counts from the end; items are counted from 0")
    if re.search(r"\.__", name):
        raise _wrong(
            template, f"{{{name}}} names no key of a record (Python's attributes are not read)"
        )
    return Field(name, path)


def _wrong(template: str, reason: str) -> ValueError:
    return ValueError(f"{shown(template)}: {' '.join(reason.split())}")
