"""The options of a merge that a user gives on the command line or to the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lori_core.core.errors import InputError
from lori_core.merging.merge_methods import Options, check_options
from lori_core.registries.merge_method import MERGE_METHODS


def options_of(method: str, given: Mapping[str, Any], prefix: str = "") -> Options:
    """Return a merge's options, all of which the method must use.

    Args:
        method: the merge method.
        given: the options by name; None for those that the user did not give.
        prefix: stands before an option's name in messages, as `--`.

    Raises:
        InputError: as `check_options`, or the method does not use an option that is given.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    options = Options(**chosen)
    check_options(method, options)
    for name in chosen:
        if name not in MERGE_METHODS[method].uses:
            fit = ", ".join(m for m, known in MERGE_METHODS.items() if name in known.uses)
            shown = f"{prefix}{name.replace('_', '-') if prefix else name}"
            raise InputError(
                f"{shown}: the method {method} does not use it; remove the option, or choose one "
                f"of {fit}"
            )
    return options
