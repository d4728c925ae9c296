"""What a check of `lori doctor` reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is well, what was seen, and what to do if not."""

    name: str
    ok: bool
    text: str
    todo: str = ""


Check = Callable[[Path, Mapping[str, Any]], Iterator[Finding]]
