"""Opening files that are read: regular ones only, within a limit of size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from lori_core.core.errors import InputError

#: The most bytes of a file that is read whole.
WHOLE_FILE = 16 << 20


def descriptor(path: Path, error: type[InputError] = InputError) -> int:
    """Open a regular file, or a link to one, for reading and return its descriptor.

    Anything else (a folder, a pipe, a device) is refused without waiting for it.

    Raises:
        InputError: of the type `error`, naming the path and what it is.
    """
    try:
        _check_regular(path, Path(path).stat().st_mode, error)
        # Not to wait for a pipe that has taken the file's place.
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
        InputError: of the type `error`; also where reading fails later, for as long as it is open.
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
        most: how many bytes it may have.
        error: the type of the error.

    Raises:
        InputError: of that type: missing, not a file, not readable, or larger than `most`.
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
