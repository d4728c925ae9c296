"""Guess the definition of a source from its first record, for `lori init`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lori_core.config import SourceSection
from lori_core.core.errors import DataError, InputError
from lori_core.data.sources import formats, record_files, split_files

#: The usual names of a prompt's and a target's columns, tried in this order.
COLUMNS = (
    ("prompt", "target"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("input", "output"),
)
#: The usual names of a column with conversations.
CONVERSATIONS = ("messages", "conversations", "conversation")
#: The shares of a source that has training examples alone.
SHARES = {"test": 0.1, "validation": 0.1}


def definition(path: str, prompt: str | None, target: str | None, where: str) -> dict[str, Any]:
    """Return the definition of a local source, as params.yaml has it, after reading one record.

    Args:
        path: a file, a folder, or a glob pattern.
        prompt: the column or template of prompts; None to take a usual name.
        target: the same of targets.
        where: what an error begins with.

    Raises:
        InputError: the files cannot be read, or the columns have no usual names.
    """
    source: dict[str, Any] = {"kind": "local", "path": path}
    # With a rule for splits, a folder of files that are named after no split is one set.
    loose = SourceSection.model_validate(source | {"split": SHARES})
    try:
        files = split_files.split_files(SourceSection.model_validate(source), where)
    except DataError:
        files = split_files.split_files(loose, where)
    place, record = next(iter(record_files.records(files[0][1])))
    if not isinstance(record, Mapping):
        raise DataError(f"{place}: expected a JSON object, got {type(record).__name__}")
    source |= _columns(record, prompt, target, where, files[0][1])
    if {split for split, _ in files} == {"train"}:
        source["split"] = dict(SHARES)
    section = SourceSection.model_validate(source)
    formats.check_format(section, where)
    formats.convert(record, section, place)
    return source


def _columns(
    record: Mapping[str, Any], prompt: str | None, target: str | None, where: str, path: Path
) -> dict[str, Any]:
    if prompt is None and target is None:
        for name in CONVERSATIONS:
            if name in record:
                return {"messages": name}
        pair = next((pair for pair in COLUMNS if set(pair) <= record.keys()), None)
        if pair is None:
            raise InputError(
                f"{where}: {path} has the columns {', '.join(map(str, record)):.300}; say which "
                "hold the prompt and the target: --prompt COLUMN --target COLUMN"
            )
        prompt, target = pair
        if "input" in record and prompt == "instruction":
            prompt = "{instruction}\n\n{input}"
    if prompt is None or target is None:
        raise InputError(f"{where}: --prompt and --target go together; give both")
    return {"fields": {"prompt": prompt, "target": target}}
