"""Check DVC's small files before DVC reads them: DVC blocks on pipes and has no size limits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lori_core.core.errors import InputError
from lori_core.core.files import input_files, yaml_input

#: Limits of a file; 100 stages take about 200 KB.
MOST_BYTES = 32 << 20
MOST_VALUES = 2_000_000
_YAML = ("dvc.yaml", "dvc.lock", "experiments/dvc.yaml", "experiments/dvc.lock")
_CONFIG = (".dvc/config", ".dvc/config.local")
#: SHA-256 of contents that passed the check, so that the same bytes are not checked twice.
_valid: set[bytes] = set()


def check(workspace: Path) -> None:
    """Refuse DVC's files that are not regular files, too large, not UTF-8, or invalid YAML.

    Raises:
        InputError: a file is refused; the message names it, and the line if there is one.
    """
    for path in _files(workspace):
        _check(path, _stamp(path))


def read(path: Path) -> bytes | None:
    """Return a small file's bytes; None if it does not exist.

    Raises:
        InputError: it is not a regular file, or it is too large.
    """
    return input_files.read_bytes(path, MOST_BYTES) if os.path.lexists(path) else None


def scan(content: bytes, where: str) -> None:
    """Check YAML before DVC parses it; the same bytes are checked once.

    Args:
        content: the file's bytes.
        where: the file's name in messages.

    Raises:
        YAMLFaultError: it is invalid or exceeds the limits.
        InputError: it is not UTF-8.
    """
    digest = hashlib.sha256(content).digest()
    if digest in _valid:
        return
    text = yaml_input.decoded(content, where, InputError)
    yaml_input.loads(text, lambda _: None, most=MOST_VALUES)
    _valid.add(digest)


def _files(workspace: Path) -> Iterator[Path]:
    named = [workspace / name for name in (*_YAML, *_CONFIG)]
    yield from (path for path in named if os.path.lexists(path))
    yield from sorted(path for path in workspace.glob("*.dvc") if path.name != ".dvc")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


@cache
def _check(path: Path, stamp: tuple[int, ...]) -> None:
    """Check a file once for each `stamp` (inode, size, modification time)."""
    content = input_files.read_bytes(path, MOST_BYTES)
    if path.parent.name == ".dvc":
        yaml_input.decoded(content, str(path), InputError)
    elif content.strip():  # the readers of a file report that it is empty
        try:
            scan(content, str(path))
        except yaml_input.YAMLFaultError as error:
            mend = f"restore it, as in git checkout -- {path.name}"
            raise InputError(f"{error.at(str(path))}: {error}; {mend}") from None
