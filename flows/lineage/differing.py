"""Find the bytes of a file that differ from the recorded ones."""

from __future__ import annotations

from pathlib import Path

from flows.versioning.objects import CHUNK, Objects, md5_of


def restorable(name: str) -> str:
    """Return the advice how to get an output's recorded bytes."""
    return f"lori restore {name} OUT writes the recorded bytes"


def bytes_text(objects: Objects, path: Path, md5: str) -> str:
    """Return which bytes of a file differ from those of a hash, as text."""
    original = objects.cached(md5)
    if original is None or md5_of(original) != md5:
        return f"its bytes are not the recorded ones ({md5}; no copy in the cache to compare with)"
    first, last = differing_bytes(path, original)
    size, other = path.stat().st_size, original.stat().st_size
    length = "" if size == other else f"; {size} bytes instead of {other}"
    return f"bytes {first}-{last} differ from the recorded ones ({md5}){length}"


def differing_bytes(first: Path, second: Path) -> tuple[int, int]:
    """Return the offsets of the first and the last differing byte of two files.

    Bytes that only the longer file has count as different.
    """
    low, high, position = -1, -1, 0
    with first.open("rb") as a, second.open("rb") as b:
        while True:
            left, right = a.read(CHUNK), b.read(CHUNK)
            if not left and not right:
                return low, high
            if left != right:
                longest = max(len(left), len(right))
                shared = min(len(left), len(right))
                unequal = [i for i in range(shared) if left[i] != right[i]]
                start = unequal[0] if unequal else shared
                low = position + start if low < 0 else low
                high = position + (longest - 1 if longest > shared else unequal[-1])
            position += max(len(left), len(right))
