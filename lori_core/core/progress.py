"""Progress of what lasts: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, what: str, unit: str, done: int = 0) -> Any:
    """Return a tqdm bar with rate and time left; in a log it writes a line every ten seconds."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=unit,
        mininterval=0.2 if terminal else 10,
        ncols=None if terminal else 90,
        ascii=None if terminal else " #",
        leave=True,
    )
