"""Which of this package's files a result was computed by: a part of its content key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent

#: What decides the numbers of a training run, besides the libraries.
TRAINING = (
    "attaching.py",
    "data/batching.py",
    "data/packing.py",
    "data/prompts.py",
    "fused.py",
    "loss.py",
    "packed.py",
    "plain_attention.py",
    "pointwise.py",
    "precision.py",
    "projection.py",
    "session.py",
    "sparse.py",
    "training.py",
)
MASK = ("calibration.py", "mask.py")
MERGE = ("merge_methods.py", "merging.py")


def digests(files: Iterable[str]) -> dict[str, str]:
    """Return the MD5 of files of this package as `lori_core/<file>` -> 32 hex digits.

    MD5 because DVC records the same for a stage's code: the two confirm each other.
    """
    return {f"lori_core/{name}": _md5(PACKAGE / name) for name in files}


@cache
def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
