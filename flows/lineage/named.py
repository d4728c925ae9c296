"""What a name on the command line refers to."""

from __future__ import annotations

from dataclasses import dataclass

from flows.versioning.snapshot import Snapshot


@dataclass(frozen=True)
class Named:
    """What a user's word stands for: a state, and one artifact in it (None for all of it)."""

    state: Snapshot
    path: str | None
