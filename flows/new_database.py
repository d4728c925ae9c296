"""Create the SQLite databases of MLflow and Prefect as copies of an empty one in the user's cache.

Both libraries create a database by running all migrations of their schema's history, which takes
seconds of CPU time. The first database that they create is saved in the cache, empty, and copied
afterwards. The name of a cached file holds the library's version, a digest of its migrations and
the SHA-256 of the file, so that neither another version's nor a changed file is ever used. The
libraries check the schema's revision of a copy when they open it, as of every database.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows import private
from lori_core.core.cache import cache_folder
from lori_core.core.errors import InputError

#: The folder of a library's migrations, inside its package.
MIGRATIONS: Mapping[str, str] = {
    "mlflow": "store/db_migrations/versions",
    "prefect": "server/database/_migrations/versions/sqlite",
}
#: Tables to which migrations themselves write rows: the schema's revision, and MLflow's default
#: workspace.
FILLED = ("alembic_version", "workspaces")
#: The folder inside the user's cache.
FOLDER = "databases"


def copy(database: Path, library: str) -> bool:
    """Create a database as a copy of the cached one; return whether that was possible.

    An existing database is never replaced.

    Args:
        database: the file to create, readable by its owner only; its folder exists.
        library: `mlflow` or `prefect`.
    """
    # SQLite would apply a former database's journal to the copy.
    names = (database, *(database.with_name(database.name + end) for end in ("-wal", "-journal")))
    if any(os.path.lexists(path) for path in names):
        return False
    content = _cached(library)
    if content is None:
        return False
    # Unlike a rename, a link does not replace a file that another process has created meanwhile.
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=database.parent, prefix=".") as file:
        file.write(content)
        file.flush()
        os.link(file.name, database)
        return True
    return False


def keep(database: Path, library: str) -> None:
    """Keep a copy of a database that the library's migrations have just created.

    Nothing is saved if the cache cannot be written, or if the database is not empty.

    Args:
        database: the database.
        library: `mlflow` or `prefect`.
    """
    prefix = _prefix(library)
    if prefix is None:
        return
    with suppress(OSError, InputError, sqlite3.Error):
        folder = private.folder(cache_folder() / FOLDER)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
            work = Path(file.name)
        try:
            _back_up(database, work)
            if _is_empty(work):
                work.replace(folder / f"{prefix}-{_digest(work.read_bytes())}.db")
        finally:
            work.unlink(missing_ok=True)


def _back_up(database: Path, target: Path) -> None:
    """Copy a database with what its write-ahead log holds."""
    source, copied = sqlite3.connect(database), sqlite3.connect(target)
    try:
        source.backup(copied)
    finally:
        copied.close()
        source.close()


def _is_empty(database: Path) -> bool:
    """Return whether a database has a schema, and no rows except those of migrations."""
    connection = sqlite3.connect(database)
    try:
        names = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = [str(name) for (name,) in connection.execute(names)]
        filled = [
            name
            for name in tables
            if connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()  # noqa: S608
        ]
        return "alembic_version" in filled and set(filled) <= set(FILLED)
    finally:
        connection.close()


def _cached(library: str) -> bytes | None:
    """Return the cached empty database of the installed version; None if there is none."""
    prefix = _prefix(library)
    if prefix is None:
        return None
    with suppress(OSError, InputError):
        for path in sorted((cache_folder() / FOLDER).glob(f"{prefix}-*.db")):
            status = path.lstat()
            own = status.st_uid == os.getuid() and not status.st_mode & 0o077
            if own and stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
                if path.stem == f"{prefix}-{_digest(content)}":
                    return content
    return None


def _prefix(library: str) -> str | None:
    """Return the beginning of the cached file's name; None if the library has no migrations.

    It is `LIBRARY-VERSION-DIGEST`, with a digest of the names and bytes of all migrations.
    """
    spec = util.find_spec(library)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        files = sorted(Path(location, MIGRATIONS[library]).glob("*.py"))
        if files:
            sha = hashlib.sha256()
            for file in files:
                sha.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
            with suppress(PackageNotFoundError):
                return f"{library}-{version(library)}-{sha.hexdigest()[:16]}"
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
