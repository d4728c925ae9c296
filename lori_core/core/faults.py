"""Explain errors of the operating system and SQLite in one line with a remedy.

They are full or read-only disks, missing permissions, exhausted memory or file descriptors, and
unusable databases. Libraries raise them as their own exceptions, often with the system's message
only in the text.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lori_core.core.errors import InputError, LoriError

#: If a write failed, a file system with less free space than this counts as full.
FULL_BYTES = 1 << 20

#: Texts of errors without an errno -> the errno.
_MESSAGES: Sequence[tuple[str, int]] = (
    (r"no space left on device|database or disk is full|not enough space", errno.ENOSPC),
    (r"disk quota exceeded", errno.EDQUOT),
    (r"file too large", errno.EFBIG),
    (r"read-only file system|attempt to write a readonly database", errno.EROFS),
    (r"too many open files", errno.EMFILE),
    (r"can't start new thread", errno.EAGAIN),
    (r"can't allocate memory|cannot allocate memory|bad_alloc|out of memory", errno.ENOMEM),
    (r"pytorchstreamwriter failed|file write failed|unexpected pos \d+", errno.ENOSPC),
    (r"input/output error|disk i/o error", errno.EIO),
    (r"symlink loop from", errno.ELOOP),  # pathlib raises a RuntimeError
)

#: errno -> the class of the error, which decides the exit code, and the explanation with a remedy.
_REMEDIES: dict[int, tuple[type[LoriError], str]] = {
    errno.ENOSPC: (LoriError, "the disk is full: free some space, then run again"),
    errno.EDQUOT: (LoriError, "the disk quota is used up: free some space, then run again"),
    errno.EFBIG: (LoriError, "a file would be larger than allowed: raise ulimit -f"),
    errno.EROFS: (InputError, "the file system is read-only: mount it read-write, or use a "
                  "folder elsewhere"),
    errno.EACCES: (InputError, f"user {os.getuid()} has no permission: change the owner or the "
                   "mode (chown, chmod), or use a folder elsewhere"),
    errno.EPERM: (InputError, f"user {os.getuid()} is not permitted to do that: change the owner "
                  "or the attributes (chown, chattr), or use a folder elsewhere"),
    errno.EMFILE: (LoriError, "this process has too many open files: raise ulimit -n"),
    errno.ENFILE: (LoriError, "this machine has too many open files: raise fs.file-max"),
    errno.EAGAIN: (LoriError, "no process or thread more can be started: raise ulimit -u, or end "
                   "other processes"),
    errno.ENOMEM: (LoriError, "out of memory: end other processes, or lower the batch sizes"),
    errno.EIO: (LoriError, "the disk fails: look at the kernel's log (dmesg)"),
    errno.ESTALE: (LoriError, "the network disk was changed elsewhere: mount it anew"),
    errno.ENOTDIR: (InputError, "a file stands where a folder should: move it away"),
    errno.EISDIR: (InputError, "a folder stands where a file should: move it away"),
    errno.ELOOP: (InputError, "its symbolic links lead in a circle: name the file itself"),
    errno.ENAMETOOLONG: (InputError, "the path is too long: use a folder nearer to the root"),
}  # fmt: skip

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Errors whose explanation is sufficient without a path.
_NEEDS_NO_PATH = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EAGAIN,
    errno.ENOMEM, errno.EIO, errno.EROFS,
)  # fmt: skip


def explained(error: BaseException) -> LoriError | None:
    """Return a one-line error for a system or database error; None for any other error.

    Args:
        error: the exception; its causes and contexts are examined too.
    """
    for cause in _chain(error):
        if isinstance(cause, LoriError):
            return cause
        database = _database(cause)
        if database is not None:
            return database
        number = _number(cause)
        if number in _REMEDIES:
            kind, remedy = _REMEDIES[number]
            where = _where(cause, number)
            if where or number in _NEEDS_NO_PATH:
                return kind(f"{where}: {remedy}" if where else remedy)
    return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add a path to an `OSError` that names none, such as that of a failed write."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and SQLAlchemy's `orig`."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        current = todo.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            todo += [getattr(current, "orig", None), current.__cause__, current.__context__]


def _number(error: BaseException) -> int | None:
    """Return an error's errno, parsed from the text if the exception has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error).lower()
    quoted = re.search(r"\(os error (\d+)\)|\[errno (\d+)\]", text)
    if quoted:
        return int(quoted[1] or quoted[2])
    return next((number for pattern, number in _MESSAGES if re.search(pattern, text)), None)


def _where(error: BaseException, number: int) -> str:
    """Return the path that an error names; for a full disk without one, the full locations."""
    names = [getattr(error, name, None) for name in ("filename", "filename2")]
    # A copy has two file names and writes the second.
    name = names[1] if number in _FULL and names[1] is not None else names[0]
    if name is not None:
        return os.fsdecode(name) if isinstance(name, str | bytes) else ""
    quoted = re.search(r"""(['"])(/[^'"\n]+)\1""", str(error))
    if quoted:
        return quoted[2]
    database = _noted_database(error)
    if database:
        return database
    return ", ".join(full_places()) if number in _FULL else ""


def full_places() -> list[str]:
    """Return the locations that this project writes to whose file systems are full."""
    from lori_core.core.cache import cache_folder

    places = [Path.cwd(), Path("/dev/shm")]  # noqa: S108 - only its free space is read
    for find in (cache_folder, lambda: Path(tempfile.gettempdir())):
        try:
            places.append(find())
        except (InputError, OSError):
            continue
    full: dict[int, str] = {}
    for place in places:
        existing = next((path for path in (place, *place.parents) if path.is_dir()), None)
        if existing is not None and shutil.disk_usage(existing).free < FULL_BYTES:
            full.setdefault(existing.stat().st_dev, str(place))
    return list(full.values())


_LOCKED = "locked by another process: end that one, then run again"
#: Messages of SQLite and of MLflow's migrations -> the explanation with a remedy.
_DATABASE: Sequence[tuple[str, str]] = (
    (r"file is not a database|database disk image is malformed", "damaged: restore a copy, or "
     "move it away and a new one is made"),
    (r"database is locked", _LOCKED),
    (r"unable to open database file", "cannot be opened: its folder must be there, and this user "
     "must be able to write it"),
    (r"can't locate revision|out-of-date database schema", "written by another version: "
     "install that version, or move the file away and a new one is made"),
    (r"no such table|no such column", "without the tables that belong into it: restore a "
     "copy, or move it away and a new one is made"),
)  # fmt: skip


def _database(error: BaseException) -> LoriError | None:
    text = str(error).lower()
    remedy = next((remedy for words, remedy in _DATABASE if re.search(words, text)), None)
    if remedy is None:
        return None
    name = _noted_database(error)
    if remedy == _LOCKED and name:
        processes = ", ".join(processes_with_open(Path(name)))
        remedy = remedy.replace("another process", processes) if processes else remedy
    return LoriError(f"{name or 'an SQLite database'}: {remedy}")


def processes_with_open(database: Path) -> list[str]:
    """Return this user's other processes that have an SQLite database open.

    Each is text such as `process 4711 (mlflow server)`. The database's journal and WAL files count
    as the database.
    """
    files = {f"{database.resolve()}{ending}" for ending in ("", "-wal", "-shm", "-journal")}
    processes = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()) or not _has_open(process, files):
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")[:3]
        except OSError:
            continue  # it ended in the meantime
        name = " ".join(os.fsdecode(word) for word in words if word)[:80]
        processes.append(f"process {process.name} ({' '.join(name.split())})")
    return processes


def _has_open(process: Path, files: Collection[str]) -> bool:
    try:
        return any(str(link.readlink()) in files for link in (process / "fd").iterdir())
    except OSError:  # another user's process, or ended
        return False


def _noted_database(error: BaseException) -> str:
    """Return the database that `about` added to an error as a note."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_NOTE)]
    return notes[0].removeprefix(_NOTE) if notes else ""


_NOTE = "database: "


@contextmanager
def about(database: object) -> Iterator[None]:
    """Add a note with the database's name to errors raised inside, and to their causes."""
    try:
        yield
    except Exception as error:
        note(error, database)
        raise


def note(error: BaseException, database: object) -> None:
    """Add a note with the database's name to an error and to its causes."""
    for cause in _chain(error):
        cause.add_note(f"{_NOTE}{database}")
