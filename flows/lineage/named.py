"""The snapshot and artifact that a name on the command line refers to."""

from __future__ import annotations

from dataclasses import dataclass

from flows.versioning.snapshot import Snapshot


@dataclass(frozen=True)
class Named:
    """The snapshot and artifact that a user named.

    Attributes:
        snapshot: the snapshot.
        path: an artifact in it; None for the whole snapshot.
    """

    snapshot: Snapshot
    path: str | None
