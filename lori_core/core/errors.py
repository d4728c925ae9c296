"""Errors a user can act on: each is one line saying what is wrong, what is allowed, what to do."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable


class LoriError(Exception):
    """The work failed (exit code 1)."""

    exit_code = 1


class InputError(LoriError):
    """Something the user gave is wrong (exit code 2); never retried, nothing has been written."""

    exit_code = 2


class ConfigError(InputError):
    """`params.yaml`, a profile or an override is wrong."""


class DataError(InputError):
    """A data file or source is missing, malformed or empty."""


class ModelError(InputError):
    """A base model cannot be used: missing, incomplete, or not what it should be."""


class AdapterError(InputError):
    """An adapter or mask cannot be used: damaged, or made for something else."""


class DivergedError(LoriError):
    """Training produced a loss that is not a finite number."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(what: str, word: str, allowed: Iterable[str]) -> str:
    """Return the one-line text for a name that is not in a registry."""
    names = sorted(allowed)
    return f"{what} {word!r} is unknown{nearest(word, names)} (allowed: {', '.join(names)})"


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = 100


def shown(value: object) -> str:
    """Return a value as an error message shows it: as Python writes it, cut where it is long."""
    return _SHORT.repr(value)


#: What ends a line, moves the cursor or changes a terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 2000


def one_line(said: object) -> str:
    """Return text as one line that a terminal shows as it is, cut where it is very long."""
    text = " ".join(line.strip() for line in str(said).split("\n") if line.strip())
    text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
