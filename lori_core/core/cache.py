"""The folder of converted models, shared by all workspaces of a user."""

from __future__ import annotations

import os
from pathlib import Path

from lori_core.core.errors import InputError


def cache_folder() -> Path:
    """Return `$LORI_CACHE`, else `lori` in the user's cache folder; the folder may not exist.

    Raises:
        InputError: the folder cannot be created or written to.
    """
    named = os.environ.get("LORI_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    # Unlike pathlib's, these functions do not raise if there is no home folder or no permission.
    folder, home = (Path(os.path.expanduser(name)) for name in (named or f"{shared}/lori", "~"))  # noqa: PTH111
    existing = next(p for p in (folder, *folder.absolute().parents) if os.path.exists(p))  # noqa: PTH110
    homeless = os.environ.get("HOME") == "" or not os.path.isdir(home)  # noqa: PTH112
    if not named and shared.startswith("~") and homeless:
        why = "no home folder can be used (HOME)"
    elif not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        why = f"{existing} cannot be written"
    else:
        return folder
    raise InputError(
        f"{folder}: models cannot be kept there: {why}; set LORI_CACHE to a folder that can be "
        "written"
    )
