"""DVC's small files, looked at before DVC reads them: it waits for pipes, and knows no limits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lori_core.core.errors import InputError
from lori_core.core.files import input_files, yaml_input

#: What DVC writes grows with the number of stages; a hundred of them take 200 KB.
MOST_BYTES = 32 << 20
MOST_VALUES = 2_000_000
_YAML = ("dvc.yaml", "dvc.lock", "experiments/dvc.yaml", "experiments/dvc.lock")
_CONFIG = (".dvc/config", ".dvc/config.local")
#: SHA-256 of contents that were looked at: a plan parses its files, and DVC then reads them again.
_found_good: set[bytes] = set()


def check(workspace: Path) -> None:
    """Refuse files of DVC's that are no files, too large, not UTF-8, or YAML beyond the limits.

    Raises:
        InputError: naming the file, and the line where there is one.
    """
    for path in _files(workspace):
        _check(path, _stamp(path))


def read(path: Path) -> bytes | None:
    """Return a small file's bytes; None where there is nothing of that name.

    Raises:
        InputError: it is no regular file, or too large.
    """
    return input_files.read_bytes(path, MOST_BYTES) if os.path.lexists(path) else None


def scan(content: bytes, where: str) -> None:
    """Look at YAML that DVC reads, before anything is made of it; once at the same bytes.

    Raises:
        YAMLFaultError: it is not valid, or beyond the limits.
        InputError: it is not UTF-8.
    """
    digest = hashlib.sha256(content).digest()
    if digest in _found_good:
        return
    text = yaml_input.decoded(content, where, InputError)
    yaml_input.loads(text, lambda _: None, most=MOST_VALUES)
    _found_good.add(digest)


def _files(workspace: Path) -> Iterator[Path]:
    named = [workspace / name for name in (*_YAML, *_CONFIG)]
    yield from (path for path in named if os.path.lexists(path))
    yield from sorted(path for path in workspace.glob("*.dvc") if path.name != ".dvc")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        said = path.stat()
    except OSError:
        return ()
    return said.st_ino, said.st_size, said.st_mtime_ns


@cache
def _check(path: Path, stamp: tuple[int, ...]) -> None:
    """Look at one state of a file; it is not looked at again."""
    content = input_files.read_bytes(path, MOST_BYTES)
    if path.parent.name == ".dvc":
        yaml_input.decoded(content, str(path), InputError)
    elif content.strip():  # an empty one is for whoever reads it
        try:
            scan(content, str(path))
        except yaml_input.YAMLFaultError as error:
            mend = f"restore it, as in git checkout -- {path.name}"
            raise InputError(f"{error.at(str(path))}: {error}; {mend}") from None
