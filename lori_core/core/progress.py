"""Progress of long work: a bar in a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, what: str, unit: str, done: int = 0) -> Any:
    """Return a tqdm bar; if standard error is no terminal it writes a line every ten seconds.

    Args:
        total: the number of units.
        what: the description before the bar.
        unit: the name of a unit.
        done: the number of units that are already done.
    """
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
