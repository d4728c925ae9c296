"""Read the records of a local CSV file whose first row names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from lori_core.core.errors import DataError
from lori_core.core.files import input_files


def records(path: Path, most: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each record with its location, `FILE:LINE` of its first line.

    Args:
        path: the file, in UTF-8.
        most: the largest allowed size of the file, bytes.

    Raises:
        DataError: the file is not UTF-8 or not CSV, a column name is empty or repeated, there
            is no record, or a record has another number of columns.
    """
    content = input_files.read_bytes(path, most, DataError)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
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
