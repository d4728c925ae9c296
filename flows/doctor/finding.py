"""The result of a check of `lori doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One line of the result.

    Attributes:
        name: what was checked.
        ok: whether it is in order.
        text: what was found.
        todo: what to do if it is not in order.
    """

    name: str
    ok: bool
    text: str
    todo: str = ""


Check = Callable[[Path, Mapping[str, Any]], Iterator[Finding]]
