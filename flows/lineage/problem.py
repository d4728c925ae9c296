"""Problems of a lineage: files and records that do not agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.versioning.snapshot import LOCK
from lori_core.core.errors import DataError

MEND = f"restore the line, as in git checkout -- {LOCK}"
#: The most problems that an error message gives in full.
SHOWN = 3


@dataclass(frozen=True)
class Problem:
    """A file or record that does not agree with the others.

    Attributes:
        name: the file.
        text: what is wrong with it, and what to do.
        stale: whether the file may be intact, and only one of its inputs changed since.
    """

    name: str
    text: str
    stale: bool = False

    def __str__(self) -> str:
        """Return the problem as one line."""
        return f"{self.name}: {self.text}"


def refuse(problems: Sequence[Problem], what: str) -> None:
    """Raise an error if there are problems.

    Args:
        problems: the problems.
        what: the beginning of the message.

    Raises:
        DataError: one line that names all problems.
    """
    if not problems:
        return
    text = "; ".join(str(problem) for problem in problems[:SHOWN])
    others = list(dict.fromkeys(p.name for p in problems[SHOWN:]))
    more = f"; and {', '.join(others)} (lori why)" if others else ""
    raise DataError(f"{what}: {text}{more}")
