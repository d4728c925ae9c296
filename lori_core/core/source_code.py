"""Digests of this package's own files: the code's part of a content key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def digests(files: Iterable[str]) -> dict[str, str]:
    """Return the MD5 of files of this package as `lori_core/<file>` -> 32 hexadecimal digits.

    MD5 because DVC records the same for a stage's code, so each can be checked by the other.
    """
    return {f"lori_core/{name}": _md5(PACKAGE / name) for name in files}


@cache
def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
