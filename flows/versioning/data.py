"""Pinning `data/` with DVC."""

from __future__ import annotations

from pathlib import Path

from flows.versioning.dvc.dvc_repo import opened
from flows.versioning.dvc.lock_file import read_pin
from lori_core.core.errors import InputError, LoriError


def pin(workspace: Path, folder: str = "data") -> bool:
    """Bring `data.dvc` to the folder's content, as `dvc add` does; say whether it changed.

    Raises:
        LoriError: if DVC refuses.
    """
    from dvc.exceptions import DvcException

    pinned = workspace / f"{folder}.dvc"
    before = pinned.read_bytes() if pinned.is_file() else b""
    try:
        read_pin(before, pinned.name)
    except InputError:  # emptied by a kill, or damaged: DVC would refuse to read it
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
