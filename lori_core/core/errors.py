"""Errors for users: one line that says what is wrong, what is allowed and what to do."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable


class LoriError(Exception):
    """The work failed (exit code 1); the base class of all errors that users see."""

    exit_code = 1


class InputError(LoriError):
    """The user's input is wrong (exit code 2); nothing was written, and a retry is pointless."""

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
    """Return the error text for a name that is not among the allowed ones."""
    names = sorted(allowed)
    return f"{what} {word!r} is unknown{nearest(word, names)} (allowed: {', '.join(names)})"


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = 100


def shown(value: object) -> str:
    """Return a value's `repr` for an error message, shortened if it is long."""
    return _SHORT.repr(value)


#: Characters that end a line or control a terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 2000


def one_line(text: object) -> str:
    """Return a text as one line without control characters, shortened if it is very long."""
    line = " ".join(part.strip() for part in str(text).split("\n") if part.strip())
    line = _CONTROL.sub(lambda control: ascii(control[0])[1:-1], line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
