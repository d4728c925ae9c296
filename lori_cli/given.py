"""Types of command-line arguments: numbers within bounds, names and paths; and shared options."""

from __future__ import annotations

import argparse
import errno
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lori_core.core.errors import InputError, shown

#: Limits of a path's length and of the length of each of its parts (bytes).
_LONGEST_PATH, _LONGEST_PART = 4095, 255
#: Limit of a decimal number's length (characters).
_LONGEST_NUMBER = 40
#: The largest absolute value of a merge weight; `params.yaml` has the same limit.
MOST = 1e6
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def integer(least: int, most: int) -> Callable[[str], int]:
    """Return an argument type for integers from `least` to `most`, both inclusive."""

    def read(text: str) -> int:
        fits = re.fullmatch(r"-?[0-9]{1,18}", text) and least <= int(text) <= most
        if not fits:
            raise argparse.ArgumentTypeError(
                f"{shown(text)}; allowed are whole numbers from {least} to {most}"
            )
        return int(text)

    return read


def fraction(text: str) -> float:
    """Parse a number in (0, 1]."""
    number = decimal(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}; allowed are numbers above 0 and up to 1, such as 0.7"
        )
    return number


def positive(text: str) -> float:
    """Parse a number above 0."""
    number = decimal(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}; allowed are numbers above 0 and up to {MOST:g}, such as 2"
        )
    return number


def probability(text: str) -> float:
    """Parse a number above 0 and below 1."""
    number = decimal(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}; allowed are numbers above 0 and below 1, such as 0.8"
        )
    return number


def duration(text: str) -> float:
    """Parse a duration such as `90s`, `10m` or `1.5h`; return seconds."""
    parts = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([smh])", text)
    number = decimal(parts[1]) if parts else 0.0
    if parts is None or not number > 0:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}; allowed are a number above 0 and its unit, as in 90s, 10m or 2h"
        )
    return number * {"s": 1, "m": 60, "h": 3600}[parts[2]]


def decimal(text: str) -> float:
    """Parse a decimal number; return NaN if it is not one or its absolute value exceeds `MOST`."""
    plain = re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text)
    number = float(text) if plain and len(text) <= _LONGEST_NUMBER else math.nan
    return number if abs(number) <= MOST else math.nan


def weights(text: str, count: int) -> list[float]:
    """Parse the option `--weights`: one weight for all adapters, or one for each of `count`.

    Raises:
        InputError: a weight is not a number, or their number fits neither.
    """
    numbers = [decimal(part) for part in text.split(",")]
    if not all(map(math.isfinite, numbers)):
        raise InputError(
            f"--weights: {shown(text)}; expected numbers from {-MOST:,.0f} to "
            f"{MOST:,.0f}, such as 0.4,0.4,0.2"
        )
    if len(numbers) not in (1, count):
        raise InputError(
            f"--weights: {len(numbers)} weights for {count} adapters; give 1 weight or {count}"
        )
    return numbers * count if len(numbers) == 1 else numbers


def name_or_path(text: str) -> str:
    """Parse a name or path: one line of text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{shown(text)}; the name must not be empty")
    if _CONTROL.search(text):
        raise argparse.ArgumentTypeError(
            f"{shown(text)} contains a control character; remove the character"
        )
    try:
        size = len(os.fsencode(text))
        longest = max(len(os.fsencode(part)) for part in text.split("/"))
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a valid file name") from None
    if longest > _LONGEST_PART or size > _LONGEST_PATH:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is too long: a path has at most {_LONGEST_PATH} bytes, and each of "
            f"its parts has at most {_LONGEST_PART}"
        )
    return text


def path(text: str) -> Path:
    """Parse a path; the command itself checks whether the path exists."""
    parsed = Path(name_or_path(text))
    try:
        parsed.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise argparse.ArgumentTypeError(
                f"{shown(text)} contains a symbolic link that leads to itself; give another path"
            ) from None
    return parsed


def name_list(text: str) -> str:
    """Parse names separated by commas; each name may appear once."""
    names = [name_or_path(name.strip()) for name in text.split(",")]
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{shown(text)} contains a name twice")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/-]*", name) or ".." in name:
            raise argparse.ArgumentTypeError(
                f"{shown(name)} is not a valid name; allowed are letters, digits, ., :, /, - and _"
            )
    return ",".join(names)


def repository(text: str) -> str:
    """Parse the OWNER/NAME of a repository on a model hub."""
    part = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
    if not re.fullmatch(f"{part}/{part}", text) or ".." in text:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}; allowed is OWNER/NAME with letters, digits, ., - and _"
        )
    return text


def names_of(paths: list[Path]) -> list[str]:
    """Return the shortest distinct names for paths: `math` for `math/adapter`.

    Raises:
        InputError: a path appears twice.
    """
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise InputError("an adapter is named twice; name each adapter once")
    while len(parts) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def add_extension(parser: Any) -> None:
    """Add the option `--extension`, which names Python files that register components."""
    parser.add_argument(
        "--extension",
        type=name_or_path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers merge methods, scorers, data sources or other "
        "components, as `extensions` in params.yaml does; may be repeated",
    )


def add_base(parser: Any) -> None:
    """Add the option `--base`, for adapters that do not record the identity of their base model."""
    parser.add_argument(
        "--base",
        type=name_or_path,
        metavar="BASE",
        help="the base model, for adapters that record only its name or nothing: a folder, "
        "pypi:…, or OWNER/NAME@COMMIT; an adapter that records another base model is refused",
    )


def add_force(parser: Any) -> None:
    """Add the option `--force`, which lets a command replace a folder that it did not write."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the output folder whatever it contains; without this option, the command "
        "replaces only its own earlier output",
    )
