"""Pin the folder `data/` with DVC."""

from __future__ import annotations

from pathlib import Path

from flows.versioning.dvc.dvc_repo import opened
from flows.versioning.dvc.lock_file import read_pin
from lori_core.core.errors import InputError, LoriError


def pin(workspace: Path, folder: str = "data") -> bool:
    """Write the folder's hash into `data.dvc`, as `dvc add` does; return whether it changed.

    Raises:
        LoriError: DVC fails.
    """
    from dvc.exceptions import DvcException

    pinned = workspace / f"{folder}.dvc"
    before = pinned.read_bytes() if pinned.is_file() else b""
    try:
        read_pin(before, pinned.name)
    except InputError:  # empty or damaged: DVC would refuse to read it
        before = b""
        pinned.unlink(missing_ok=True)
    try:
        with opened(workspace) as repo:
            if before and not repo.status(targets=[pinned.name]):
                return False
            repo.add(folder)
    except DvcException as error:
        raise LoriError(f"dvc add {folder}: {' '.join(str(error).split())}") from error
    return pinned.read_bytes() != before
