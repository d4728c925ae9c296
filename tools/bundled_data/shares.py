"""How many examples of each kind make up a split, and how many there can be at most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lori_core.core.errors import DataError
from lori_core.data.example import SPLITS


def check_splits(name: str, splits: Iterable[str]) -> None:
    """Refuse a split that does not exist."""
    for split in splits:
        if split not in SPLITS:
            raise DataError(f"{name}: split {split!r} is unknown (allowed: {', '.join(SPLITS)})")


def divide(size: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Divide `size` over kinds by their percentages, by largest remainder: the parts add up."""
    counts = {kind: size * share // 100 for kind, share in shares.items()}
    by_remainder = sorted(shares, key=lambda kind: -(size * shares[kind] % 100))
    for kind in by_remainder[: size - sum(counts.values())]:
        counts[kind] += 1
    return counts


def most_of(room: Mapping[str, int], shares: Mapping[str, int]) -> int:
    """Return the largest split whose kinds all fit into `room`."""
    most = min(100 * (room[kind] + 1) // share for kind, share in shares.items())
    while any(count > room[kind] for kind, count in divide(most, shares).items()):
        most -= 1
    return most


def check_size(name: str, split: str, size: int, most: int) -> None:
    """Refuse a size that cannot be made without repeats."""
    if not 0 <= size <= most:
        raise DataError(
            f"{name}: {size} {split} examples were asked for, but only 0 to {most} can be made "
            "without repeats; lower the size"
        )
