"""Files and folders that only their owner can read: databases, logs, secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lori_core.core.files.atomic import json_text, replaced_file

#: The umask of processes whose files are all private.
UMASK = 0o077


def opener(path: str, flags: int) -> int:
    """Open a file like `open`; a new file has mode 0600."""
    return os.open(path, flags, 0o600)


def write_text(path: Path, text: str) -> None:
    """Write a file of mode 0600, atomically."""
    with replaced_file(path) as work:
        work.unlink(missing_ok=True)
        with open(work, "x", encoding="utf-8", opener=opener) as file:
            file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON into a file of mode 0600, atomically."""
    write_text(path, json_text(value))


def folder(path: Path) -> Path:
    """Create a folder with mode 0700, and its missing parents likewise; return it."""
    if not path.parent.exists():
        folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    narrow(path)
    return path


def narrow(path: Path) -> None:
    """Remove the group's and others' permissions from a file or folder; ignore links."""
    # Files of other users, and file systems without modes, cannot be changed.
    with suppress(OSError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o077:
            path.chmod(stat.S_IMODE(mode) & ~0o077)


def tighten(workspace: Path) -> None:
    """Create `.lori`, and `narrow` all private files of a workspace."""
    folder(workspace / ".lori")
    for path in _private(workspace):
        narrow(path)


def _private(workspace: Path) -> Iterator[Path]:
    own = workspace / ".lori"
    yield from own.iterdir()
    for inner in (own / "logs", own / "prefect"):
        yield from inner.glob("*")
    yield workspace / "prefect.toml"
    yield workspace / "mlruns"
    yield from workspace.glob("mlflow.db*")
    if home := os.environ.get("PREFECT_HOME"):
        yield from Path(home).glob("prefect.db*")
