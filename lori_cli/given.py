"""What the command line gives, checked as it is read: numbers within bounds, names, paths."""

from __future__ import annotations

import argparse
import errno
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

from lori_core.core.errors import shown

#: The most bytes of a path, and of one of its parts.
_LONGEST_PATH, _LONGEST_PART = 4095, 255
_LONGEST_NUMBER = 40
#: The most that a weight may be, either side of 0; also in `params.yaml`.
MOST = 1e6
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number between two bounds."""

    def read(text: str) -> int:
        fits = re.fullmatch(r"-?[0-9]{1,18}", text) and least <= int(text) <= most
        if not fits:
            raise argparse.ArgumentTypeError(
                f"{shown(text)}; allowed are whole numbers from {least} to {most}"
            )
        return int(text)

    return read


def share(text: str) -> float:
    """Read a number above 0, up to 1."""
    number = real(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}; allowed are numbers above 0, up to 1, as 0.7"
        )
    return number


def real(text: str) -> float:
    """Read a decimal number as people write one; NaN where it is none, or beyond a million."""
    plain = re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text)
    number = float(text) if plain and len(text) <= _LONGEST_NUMBER else math.nan
    return number if abs(number) <= MOST else math.nan


def word(text: str) -> str:
    """Read a name: text on one line that can also be a path."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{shown(text)}; name something")
    if _CONTROL.search(text):
        raise argparse.ArgumentTypeError(f"{shown(text)} holds a control character; name another")
    try:
        size = len(os.fsencode(text))
        longest = max(len(os.fsencode(part)) for part in text.split("/"))
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no name of a file") from None
    if longest > _LONGEST_PART or size > _LONGEST_PATH:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is too long: a path has at most {_LONGEST_PATH} bytes, each of its "
            f"names {_LONGEST_PART}"
        )
    return text


def path(text: str) -> Path:
    """Read a path; what stands there is for the command to judge."""
    found = Path(word(text))
    try:
        found.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is, or lies behind, a link that leads to itself; name another"
            ) from None
    return found


def words(text: str) -> str:
    """Read names with commas between them, each once."""
    names = [word(name.strip()) for name in text.split(",")]
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{shown(text)} names one twice")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/-]*", name) or ".." in name:
            raise argparse.ArgumentTypeError(
                f"{shown(name)} is no name; allowed are letters, digits, ., :, /, - and _"
            )
    return ",".join(names)


def repository(text: str) -> str:
    """Read OWNER/NAME of a hub."""
    part = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
    if not re.fullmatch(f"{part}/{part}", text) or ".." in text:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}; allowed is OWNER/NAME, of letters, digits, ., - and _"
        )
    return text
