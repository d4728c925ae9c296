"""Digests of this package's own files: the code's part of a content key."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lori_core.errors import ConfigError

PACKAGE = Path(__file__).parent


def digests(files: Iterable[str]) -> dict[str, str]:
    """Return the MD5 of files of this package as `lori_core/<file>` -> 32 hexadecimal digits.

    MD5 because DVC records the same for a stage's code, so each can be checked by the other.
    """
    return {f"lori_core/{name}": _md5(PACKAGE / name) for name in files}


def added(kind: type) -> dict[str, Any]:
    """Return the MD5 of the files outside this package that a class is defined in, its bases' too.

    Returns:
        `extension` -> file name -> digest; empty for a class of this package.

    Raises:
        ConfigError: for a class of no known file, as of an interactive session.
    """
    found = {}
    for each in kind.__mro__:
        if each.__module__.partition(".")[0] in (__package__, "abc", "builtins"):
            continue
        file = getattr(sys.modules.get(each.__module__), "__file__", None)
        if file is None:
            raise ConfigError(
                f"{each.__module__}.{each.__qualname__}: stands in no file that is known, so "
                "results of other code could not be told apart; put it into a module"
            )
        found[Path(file).name] = _md5(Path(file))
    return {"extension": found} if found else {}


@cache
def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
