"""Open input files that may be compressed: `.gz` (gzip) and `.zst` (Zstandard)."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from lori_core.core.errors import InputError
from lori_core.core.files import input_files

#: The endings of compressed files, and the names of the formats.
ENDINGS = {".gz": "gzip", ".zst": "Zstandard"}
#: The bytes of compressed data that are decompressed at a time; a byte of Zstandard can become
#: 32 KiB of output.
_PIECE = 4096


@contextmanager
def reading(path: Path, error: type[InputError] = InputError) -> Iterator[BinaryIO]:
    """Yield a regular file opened for reading bytes, decompressed if its name ends in `ENDINGS`.

    Memory does not grow with the size of the file.

    Raises:
        InputError: of the type `error`: the file cannot be opened, or reading fails inside: it is
            not of the format that its name says, damaged, or incomplete.
    """
    import zstandard

    kind = ENDINGS.get(path.suffix)
    with input_files.reading(path, error) as file:
        try:
            if kind is None:
                yield file
            elif kind == "gzip":
                with gzip.open(file) as content:
                    yield cast(BinaryIO, content)
            else:
                yield io.BufferedReader(_Zstandard(file))
        except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as fault:
            raise error(
                f"{path}: not a complete {kind} file ({fault}); copy or compress it again"
            ) from None


def read_bytes(path: Path, most: int, error: type[InputError] = InputError) -> bytes:
    """Return the decompressed bytes of a file.

    Raises:
        InputError: of the type `error`: as `reading`, or there are more than `most` bytes.
    """
    if path.suffix not in ENDINGS:
        return input_files.read_bytes(path, most, error)
    with reading(path, error) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise error(f"{path}: has more than {most:,} bytes when decompressed, too many to be read")
    return content


class _Zstandard(io.RawIOBase):
    """The decompressed bytes of a Zstandard file; an incomplete file is an `EOFError`.

    (The reader of the package zstandard takes an incomplete file for a short one.)
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._compressed = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the beginning of `buffer`; return the number of bytes, 0 at the end."""
        import zstandard

        while not self._output:
            self._compressed = self._compressed or self._file.read(_PIECE)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("it ends in the middle")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._output = memoryview(self._frame.decompress(self._compressed))
            self._compressed = b""
            if self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count
