"""What a machine refuses, said in one line: full or read-only disks, memory, open files, databases.

Libraries raise it as errors of their own, often with nothing but the system's words in the text.
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

#: A file system with less room than this is called full once a write has failed.
FULL_BYTES = 1 << 20

#: How errors without a number say what happened.
_SAID: Sequence[tuple[str, int]] = (
    (r"no space left on device|database or disk is full|not enough space", errno.ENOSPC),
    (r"disk quota exceeded", errno.EDQUOT),
    (r"file too large", errno.EFBIG),
    (r"read-only file system|attempt to write a readonly database", errno.EROFS),
    (r"too many open files", errno.EMFILE),
    (r"can't start new thread", errno.EAGAIN),
    (r"can't allocate memory|cannot allocate memory|bad_alloc|out of memory", errno.ENOMEM),
    (r"pytorchstreamwriter failed|file write failed|unexpected pos \d+", errno.ENOSPC),
    (r"input/output error|disk i/o error", errno.EIO),
    (r"symlink loop from", errno.ELOOP),  # of pathlib's, a RuntimeError
)

#: What there is to do, and whether the place was wrong (exit code 2) or the work failed (1).
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
#: Of these the line says enough where no path is known.
_NEEDS_NO_PATH = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EAGAIN,
    errno.ENOMEM, errno.EIO, errno.EROFS,
)  # fmt: skip


def explained(error: BaseException) -> LoriError | None:
    """Return one line for what a machine refused; `None` where the error is of another kind.

    Args:
        error: what was raised; what it was raised from is looked at, too.
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
    """Put a path on errors of the system that name none, as those of a write do."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from; SQLAlchemy keeps that in `orig`."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        current = todo.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            todo += [getattr(current, "orig", None), current.__cause__, current.__context__]


def _number(error: BaseException) -> int | None:
    """Return the system's number of an error, which libraries may give as text alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error).lower()
    named = re.search(r"\(os error (\d+)\)|\[errno (\d+)\]", text)
    if named:
        return int(named[1] or named[2])
    return next((number for words, number in _SAID if re.search(words, text)), None)


def _where(error: BaseException, number: int) -> str:
    """Return the path that an error is about, else the places that are full."""
    names = [getattr(error, name, None) for name in ("filename", "filename2")]
    # Of two files, a copy writes the second.
    name = names[1] if number in _FULL and names[1] is not None else names[0]
    if name is not None:
        return os.fsdecode(name) if isinstance(name, str | bytes) else ""
    quoted = re.search(r"""(['"])(/[^'"\n]+)\1""", str(error))
    if quoted:
        return quoted[2]
    noted = _noted(error)
    if noted:
        return noted
    return ", ".join(full_places()) if number in _FULL else ""


def full_places() -> list[str]:
    """Return those of the places that this project writes to in which there is no room left."""
    from lori_core.core.cache import cache_folder

    places = [Path.cwd(), Path("/dev/shm")]  # noqa: S108 - looked at only
    for find in (cache_folder, lambda: Path(tempfile.gettempdir())):
        try:
            places.append(find())
        except (InputError, OSError):
            continue
    found: dict[int, str] = {}
    for place in places:
        there = next((path for path in (place, *place.parents) if path.is_dir()), None)
        if there is not None and shutil.disk_usage(there).free < FULL_BYTES:
            found.setdefault(there.stat().st_dev, str(place))
    return list(found.values())


_LOCKED = "locked by another process: end that one, then run again"
#: How SQLite, and MLflow's migrations, say that a database cannot be used.
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
    todo = next((todo for words, todo in _DATABASE if re.search(words, text)), None)
    if todo is None:
        return None
    name = _noted(error)
    if todo == _LOCKED and name:
        who = ", ".join(holders(Path(name)))
        todo = todo.replace("another process", who) if who else todo
    return LoriError(f"{name or 'an SQLite database'}: {todo}")


def holders(database: Path) -> list[str]:
    """Return the processes of this user that have an SQLite database open, but for this one.

    As in `process 4711 (mlflow server)`; the files beside it, where its locks may be, count as it.
    """
    files = {f"{database.resolve()}{ending}" for ending in ("", "-wal", "-shm", "-journal")}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()) or not _has_open(process, files):
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")[:3]
        except OSError:
            continue  # it ended in between
        name = " ".join(os.fsdecode(word) for word in words if word)[:80]
        found.append(f"process {process.name} ({' '.join(name.split())})")
    return found


def _has_open(process: Path, files: Collection[str]) -> bool:
    try:
        return any(str(link.readlink()) in files for link in (process / "fd").iterdir())
    except OSError:  # of another user, or gone
        return False


def _noted(error: BaseException) -> str:
    """Return the database that `about` noted on an error."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_NOTE)]
    return notes[0].removeprefix(_NOTE) if notes else ""


_NOTE = "database: "


@contextmanager
def about(database: object) -> Iterator[None]:
    """Note on errors, and on those they came from, which database they are about."""
    try:
        yield
    except Exception as error:
        note(error, database)
        raise


def note(error: BaseException, database: object) -> None:
    """Note on an error, and on those it came from, which database it is about."""
    for cause in _chain(error):
        cause.add_note(f"{_NOTE}{database}")
