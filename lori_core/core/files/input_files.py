"""Open input files: only regular files, up to a maximal size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from lori_core.core.errors import InputError

#: The most bytes of a file that is read into memory at once.
WHOLE_FILE = 16 << 20


def descriptor(path: Path, error: type[InputError] = InputError) -> int:
    """Open a regular file, or a link to one, for reading and return its descriptor.

    A folder, pipe, device or socket is refused without blocking.

    Raises:
        InputError: of the type `error`: the file is missing, not regular, or not readable.
    """
    try:
        _check_regular(path, Path(path).stat().st_mode, error)
        # O_NONBLOCK: a pipe may have replaced the file since the check.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise unreadable(path, fault, error) from None
    except ValueError as fault:  # a null character in the name
        raise error(f"{str(path)!r}: cannot be read ({fault})") from None
    try:
        _check_regular(path, os.fstat(opened).st_mode, error)
    except InputError:
        os.close(opened)
        raise
    return opened


def unreadable(
    path: Path | str, fault: OSError, error: type[InputError] = InputError
) -> InputError:
    """Return the error for a file that could not be opened or read."""
    if isinstance(fault, FileNotFoundError):
        return error(f"{path}: no such file")
    return error(f"{path}: cannot be read ({fault.strerror or fault}); name a file that can be")


def _check_regular(path: Path, mode: int, error: type[InputError]) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(mode), "something else")
    raise error(f"{path}: is {kind}, not a file; put the file there")


@contextmanager
def reading(path: Path, error: type[InputError] = InputError) -> Iterator[BufferedReader]:
    """Yield a regular file, opened for reading bytes.

    Raises:
        InputError: of the type `error`: the file cannot be opened, or reading fails inside.
    """
    try:
        with os.fdopen(descriptor(path, error), "rb") as file:
            yield file
    except OSError as fault:
        raise unreadable(path, fault, error) from None


def read_bytes(path: Path, most: int = WHOLE_FILE, error: type[InputError] = InputError) -> bytes:
    """Return a regular file's bytes.

    Args:
        path: the file.
        most: the maximal size in bytes.
        error: the type of errors.

    Raises:
        InputError: of the type `error`: missing, not regular, not readable, or larger than `most`.
    """
    with reading(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most else file.read(most + 1)
    if size > most or len(content) > most:
        raise error(
            f"{path}: has {max(size, len(content)):,} bytes; at most {most:,} are read here: is it "
            "the right file?"
        )
    return content
