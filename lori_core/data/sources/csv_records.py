"""Read the records of a CSV or TSV file whose first row names the columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lori_core.core.errors import DataError
from lori_core.core.files.atomic import text_lines

#: The most characters of a field; the csv module's own limit is 131,072.
LONGEST_FIELD = 16 << 20


def records(
    file: BinaryIO, path: Path, delimiter: str = ",", start: int = 0
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each record with its location, `FILE:LINE` of its first line; memory holds one.

    All values are text, as the file has them: no types are guessed, so that "007" and "NA" stay.

    Args:
        file: the file, opened for reading bytes, in UTF-8.
        path: its path, for errors.
        delimiter: the character between columns.
        start: the bytes of the file that were already read.

    Raises:
        DataError: the file is not UTF-8 or not CSV, a column name is empty or repeated, there
            is no record, or a record has another number of columns.
    """
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(_lines(file, path, start), delimiter=delimiter, strict=True)
    names: list[str] = []
    line, number = 1, 0
    try:
        for row in rows:
            if row and not names:
                names = _names(row, path)
            elif row:
                number += 1
                yield f"{path}:{line}", _record(names, row, f"{path}:{line}")
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{line}: not valid CSV ({error})") from None
    if not number:
        raise DataError(f"{path}: no record; expected a row of column names, then records")


#: A line with its end: LF, CRLF, or CR alone, which old programs write.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|$)")


def _lines(file: BinaryIO, path: Path, start: int) -> Iterator[str]:
    """Yield the lines of a file with their ends."""
    for _, line in text_lines(file, path, start):
        yield from (part for part in _LINE.findall(line) if part) if "\r" in line else (line,)


def _names(row: list[str], path: Path) -> list[str]:
    """Return the names of the columns."""
    names = [name.strip() for name in row]
    if "" in names or len(set(names)) < len(names):
        raise DataError(
            f"{path}:1: the first row has to name each column once, got {', '.join(names)}"
        )
    return names


def _record(names: list[str], row: list[str], where: str) -> dict[str, str]:
    """Return a row as a record."""
    if len(row) != len(names):
        raise DataError(
            f"{where}: has {len(row)} columns, expected {len(names)} ({', '.join(names)})"
        )
    return dict(zip(names, row, strict=True))
