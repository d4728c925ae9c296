"""What does not fit in a lineage, and refusing to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.versioning.snapshot import LOCK
from lori_core.core.errors import DataError

MEND = f"restore the line, as in git checkout -- {LOCK}"
#: Problems that a refusal tells in full.
TOLD = 3


@dataclass(frozen=True)
class Problem:
    """Something that is not what was made: which file, and what is wrong with it.

    Attributes:
        name: the file.
        text: what is wrong with it, and what to do.
        stale: whether it may be whole, and only made from something that changed since.
    """

    name: str
    text: str
    stale: bool = False

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.name}: {self.text}"


def refuse(problems: Sequence[Problem], what: str) -> None:
    """Refuse to do `what` with things that do not fit, if there are any.

    Raises:
        DataError: in one line that names each of them.
    """
    if not problems:
        return
    told = "; ".join(str(problem) for problem in problems[:TOLD])
    others = list(dict.fromkeys(p.name for p in problems[TOLD:]))
    more = f"; and {', '.join(others)} (lori why)" if others else ""
    raise DataError(f"{what}: {told}{more}")
