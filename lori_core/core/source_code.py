"""Digests of this package's source files, which are part of content keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def digests(files: Iterable[str]) -> dict[str, str]:
    """Return `lori_core/<file>` -> the MD5 (32 hexadecimal digits) of files of this package.

    MD5, because DVC records MD5 digests of a stage's code, so the two can be compared.
    """
    return {f"lori_core/{name}": _md5(PACKAGE / name) for name in files}


def files_of(entry: str) -> list[str]:
    """Return the files of this package that an entry of the table of dependencies stands for.

    Args:
        entry: a file or a folder, relative to this package.
    """
    path = PACKAGE / entry
    if path.is_file():
        return [entry]
    files = (file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return sorted(file.relative_to(PACKAGE).as_posix() for file in files)


@cache
def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
