"""Pinning `data/` with DVC."""

from __future__ import annotations

from pathlib import Path

from flows.versioning.dvc_repo import opened
from lori_core.errors import LoriError


def pin(workspace: Path, folder: str = "data") -> bool:
    """Bring `data.dvc` to the folder's content, as `dvc add` does; say whether it changed.

    Raises:
        LoriError: if DVC refuses.
    """
    from dvc.exceptions import DvcException

    pinned = workspace / f"{folder}.dvc"
    before = pinned.read_bytes() if pinned.is_file() else b""
    if not before:  # emptied by a kill: DVC would refuse to read it
        pinned.unlink(missing_ok=True)
    try:
        with opened(workspace) as repo:
            if before and not repo.status(targets=[pinned.name]):
                return False
            repo.add(folder)
    except DvcException as error:
        raise LoriError(f"dvc add {folder}: {' '.join(str(error).split())}") from error
    return pinned.read_bytes() != before
