"""Read the records of Parquet and Arrow files, a few at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Any, BinaryIO

from lori_core.core.errors import DataError
from lori_core.core.files import compressed

#: The rows that are converted to Python objects at a time.
_ROWS = 500
_ARROW_FILE = b"ARROW1"


def parquet(file: BinaryIO, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a Parquet file with its location, `FILE: row N`.

    Args:
        file: the file, opened for reading bytes.
        path: its path, for errors.

    Raises:
        DataError: the file is not Parquet, damaged, or has no rows.
    """
    from pyarrow.parquet import ParquetFile

    with _seekable(file, path) as whole, _errors(path, "Parquet"):
        # No prefetching: it would hold the columns of whole row groups.
        table = ParquetFile(whole, pre_buffer=False, buffer_size=1 << 20)
        yield from _rows(table.iter_batches(_ROWS, use_threads=False), path)


def arrow(file: BinaryIO, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of an Arrow file in the IPC file or stream format; as `parquet`."""
    from pyarrow import ipc

    with _seekable(file, path) as whole, _errors(path, "Arrow"):
        is_file = whole.read(len(_ARROW_FILE)) == _ARROW_FILE
        whole.seek(0)
        if not is_file:
            yield from _rows(ipc.open_stream(whole), path)
            return
        table = ipc.open_file(whole)
        batches = (table.get_batch(number) for number in range(table.num_record_batches))
        yield from _rows(batches, path)


def _rows(batches: Any, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            for record in batch.slice(start, _ROWS).to_pylist():
                number += 1
                yield f"{path}: row {number}", record
    if not number:
        raise DataError(f"{path}: the file has no rows; at least one is needed")


@contextmanager
def _errors(path: Path, kind: str) -> Iterator[None]:
    """Report an error of pyarrow's readers in one line."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, UnicodeDecodeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: not a {kind} file that can be read ({reason:.200}); write it again"
        ) from None


@contextmanager
def _seekable(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """Yield a file that can be read at any place: a compressed one is unpacked to a temporary file.

    (Seeking in a compressed file would decompress it again from its beginning.)
    """
    if path.suffix not in compressed.ENDINGS:
        yield file
        return
    with tempfile.TemporaryFile() as unpacked:
        copyfileobj(file, unpacked)
        unpacked.seek(0)
        yield unpacked
