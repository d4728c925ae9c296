"""From a record, as its authors published it, to an `Example`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lori_core.config import SourceSection
from lori_core.data.example import Example
from lori_core.errors import ConfigError, DataError, unknown

_GSM8K_QUESTION = (
    "{question}\nAnswer the above question. First think step by step and then answer the final "
    "number.\n"
)


def _fields(record: Mapping[str, Any], source: SourceSection, where: str) -> dict[str, Any]:
    """Fill the templates of `source.fields`, or copy fields of the schema's own names."""
    templates = source.fields or {"prompt": "{prompt}", "target": "{target}"}
    values: dict[str, Any] = {}
    for name, template in templates.items():
        if template and "{" not in template:
            template = "{" + template + "}"
        try:
            values[name] = template.format_map(record).strip()
        except (KeyError, ValueError, IndexError) as error:
            raise DataError(
                f"{where}: field {error} for {name!r} is missing (the record has: "
                f"{', '.join(map(str, record))})"
            ) from None
    return values


def _gsm8k(record: Mapping[str, Any], source: SourceSection, where: str) -> dict[str, Any]:
    """GSM8K: `####` in the solution becomes the marker that the scorer looks for."""
    solution = _text(record, "answer", where)
    return {
        "prompt": _GSM8K_QUESTION.format(question=_text(record, "question", where)),
        "target": solution.replace("####", "The final answer is:"),
        "answer": solution.rpartition("####")[2].strip(),
    }


def _humaneval(record: Mapping[str, Any], source: SourceSection, where: str) -> dict[str, Any]:
    """HumanEval: the function's head is the prompt, its tests define `check(candidate)`."""
    prompt = _text(record, "prompt", where)
    solution = _text(record, "canonical_solution", where)
    return {
        "prompt": f"Complete this Python function:\n\n{prompt.strip()}\n",
        "target": f"```python\n{prompt.strip()}\n{solution.rstrip()}\n```",
        "template": str(record.get("task_id", "")),
        "check": {
            "prompt": prompt,
            "entry_point": _text(record, "entry_point", where),
            "tests": _text(record, "test", where),
        },
    }


def _instructions(record: Any, source: SourceSection, where: str) -> dict[str, Any]:
    """A bare list of requests, without answers."""
    if not isinstance(record, str):
        raise DataError(f"{where}: expected text, got {type(record).__name__}")
    return {"prompt": record.strip(), "target": ""}


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} must be text, got {value!r}")
    return value


FORMATS: dict[str, Callable[[Any, SourceSection, str], dict[str, Any]]] = {
    "fields": _fields,
    "gsm8k": _gsm8k,
    "humaneval": _humaneval,
    "instructions": _instructions,
}
_SPACES = re.compile(r"[ \t]+\n")


def check_format(source: SourceSection, where: str) -> None:
    """Refuse a format that does not exist."""
    if source.format not in FORMATS:
        raise ConfigError(f"{where}.format: {unknown('format', source.format, FORMATS)}")


def convert(record: Any, source: SourceSection, where: str) -> Example:
    """Turn one record into an example; `where` is its file and line.

    Raises:
        DataError: for a record that lacks a field, or is none.
    """
    if source.format != "instructions" and not isinstance(record, Mapping):
        raise DataError(f"{where}: expected a JSON object, got {type(record).__name__}")
    values = FORMATS[source.format](record, source, where)
    if not values["prompt"]:
        raise DataError(f"{where}: the prompt is empty")
    values["prompt"] = _SPACES.sub("\n", values["prompt"])
    values.setdefault("answer", source.answer or "")
    values.setdefault("kind", source.subset)
    return Example.from_row({"scorer": source.scorer, **values}, where)
