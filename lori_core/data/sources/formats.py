"""Convert the records of a source to examples, by the source's format."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from lori_core.config import SourceSection
from lori_core.config.templates import read_template
from lori_core.core.errors import ConfigError, DataError, unknown
from lori_core.data.answers import expected_answer
from lori_core.data.example import Example
from lori_core.data.sources import messages
from lori_core.data.sources.benchmarks import BENCHMARKS
from lori_core.data.sources.benchmarks import convert as convert_benchmark
from lori_core.data.text import fill, storable, visible

_OWN_FIELDS = {"prompt": "{prompt}", "target": "{target}"}


def _fields(record: Mapping[str, Any], source: SourceSection, where: str) -> dict[str, Any]:
    """Fill the templates of `source.fields`; by default, copy `prompt` and `target`."""
    templates = source.fields or _OWN_FIELDS
    return {name: fill(template, record, name, where) for name, template in templates.items()}


def _instructions(record: Any, source: SourceSection, where: str) -> dict[str, Any]:
    """Convert a request that is a plain text without an answer."""
    if not isinstance(record, str):
        raise DataError(f"{where}: expected text, got {type(record).__name__}")
    return {"prompt": storable(record, "the request", where).strip(), "target": ""}


def _benchmark(name: str, record: Any, source: SourceSection, where: str) -> dict[str, Any]:
    """Convert a record in the format of a benchmark."""
    return convert_benchmark(name, record, where)


FORMATS: dict[str, Callable[[Any, SourceSection, str], dict[str, Any]]] = {
    "fields": _fields,
    "instructions": _instructions,
    **{name: functools.partial(_benchmark, name) for name in BENCHMARKS},
}
_SPACES = re.compile(r"[ \t]+\n")


def check_format(source: SourceSection, where: str) -> None:
    """Refuse an unknown format and invalid templates.

    Raises:
        ConfigError: names the field.
    """
    try:
        source.check(where)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if source.format not in FORMATS:
        raise ConfigError(f"{where}.format: {unknown('format', source.format, FORMATS)}")


def needs(source: SourceSection) -> tuple[str, ...]:
    """Return the fields that each record of a source must have; empty for plain texts."""
    if source.messages:
        return (source.messages,)
    if source.format in BENCHMARKS:
        return BENCHMARKS[source.format].needs
    if source.format == "instructions":
        return ()
    used = (
        part.path[0]
        for template in (source.fields or _OWN_FIELDS).values()
        for part in read_template(template)
        if not isinstance(part, str)
    )
    return tuple(dict.fromkeys(used))


def convert(record: Any, source: SourceSection, where: str) -> Example:
    """Convert a record to an example.

    Args:
        record: the record.
        source: the source; gives format, scorer and templates.
        where: the record's file and line, for errors.

    Raises:
        DataError: the record is not an object, lacks a field, or has an answer that its scorer
            cannot use.
    """
    if source.format != "instructions" and not isinstance(record, Mapping):
        raise DataError(f"{where}: expected a JSON object, got {type(record).__name__}")
    read = messages.convert if source.messages else FORMATS[source.format]
    values = read(record, source, where)
    if not visible(values["prompt"]):
        raise DataError(f"{where}: the prompt is empty")
    values["prompt"] = _SPACES.sub("\n", values["prompt"])
    values.setdefault("answer", source.answer or "")
    values.setdefault("kind", source.subset)
    example = Example.from_row({"scorer": source.scorer, **values}, where)
    expected_answer(example, where)
    return example
