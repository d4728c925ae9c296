"""Read the records of a file of this machine: CSV, TSV, JSON, JSONL, Parquet or Arrow.

Each may be compressed (`core.files.compressed`), and text may begin with a byte order mark. Only a
JSON list is parsed whole; the records of other files are read a few at a time. The readers of
`datasets` are not used for text: they guess the types of a CSV file's columns ("007" becomes 7),
and do not say in which line a fault is.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from lori_core.core.errors import DataError
from lori_core.core.files import compressed, json_input
from lori_core.core.files.atomic import jsonl_rows
from lori_core.data.sources import csv_records, table_records

#: The formats by the ending of a file's name, without that of a compression.
FORMATS = {
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
}
#: All endings that a file of records can have.
ENDINGS = tuple(ending + packed for ending in FORMATS for packed in ("", *compressed.ENDINGS))
#: The most bytes of a JSON list, which is parsed whole; larger ones are to be JSONL.
_LARGEST = 4 << 30
#: The most bytes of a first line for which a JSON file is taken for JSON lines.
_LONGEST = 16 << 20


def format_of(path: Path) -> str:
    """Return the format of a file by its name; `JSON` if the ending is unknown."""
    name = path.name.removesuffix(path.suffix) if path.suffix in compressed.ENDINGS else path.name
    return FORMATS.get(Path(name).suffix.lower(), "JSON")


def records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each record of a file with its location: file and line, record or row.

    Raises:
        DataError: the file cannot be read, is not of its format, or has no record.
    """
    kind = format_of(path)
    if kind == "JSON" and not _has_json_lines(path):
        yield from _json_list(path)
        return
    with compressed.reading(path, DataError) as file:
        if kind in ("Parquet", "Arrow"):
            read = table_records.parquet if kind == "Parquet" else table_records.arrow
            yield from read(file, path)
        elif kind in ("CSV", "TSV"):
            delimiter = "," if kind == "CSV" else "\t"
            yield from csv_records.records(file, path, delimiter, _skip_mark(file))
        else:
            for line, record in jsonl_rows(file, path, _skip_mark(file)):
                yield f"{path}:{line}", record


def _skip_mark(file: BinaryIO) -> int:
    """Skip a byte order mark of UTF-8 at the beginning of a file; return its bytes."""
    mark = codecs.BOM_UTF8
    marked = cast(Any, file).peek(len(mark))[: len(mark)] == mark
    return len(file.read(len(mark))) if marked else 0


def _has_json_lines(path: Path) -> bool:
    """Return whether a JSON file holds several objects, one a line, as JSONL does."""
    with compressed.reading(path, DataError) as file:
        _skip_mark(file)
        first = file.readline(_LONGEST)
        if not first.startswith(b"{") or not first.endswith(b"\n") or not file.readline(1 << 16):
            return False
    try:
        json_input.loads(first)
    except json_input.JSONError:
        return False
    return True


def _json_list(path: Path) -> Iterator[tuple[str, Any]]:
    content = compressed.read_bytes(path, _LARGEST, DataError).removeprefix(codecs.BOM_UTF8)
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        parsed = json_input.loads(content)
    except json_input.JSONError as error:
        raise DataError(f"{path}:{error.line}: {error}") from None
    del content
    rows = _longest_list(parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of records that is not empty")
    for number, row in enumerate(rows, start=1):
        yield f"{path}: record {number}", row


def _longest_list(parsed: dict[str, Any]) -> list[Any]:
    """Return the longest list of an object that holds its records beside other things."""
    return max((value for value in parsed.values() if isinstance(value, list)), key=len, default=[])
