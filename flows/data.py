"""Pinning `data/` with DVC."""

from __future__ import annotations

from pathlib import Path

from flows.environment import quiet_environment
from lori_core.errors import LoriError


def pin(workspace: Path, folder: str = "data") -> bool:
    """Bring `data.dvc` to the folder's content, as `dvc add` does; say whether it changed.

    Raises:
        LoriError: if DVC refuses.
    """
    quiet_environment()
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    pinned = workspace / f"{folder}.dvc"
    before = pinned.read_bytes() if pinned.is_file() else b""
    try:
        with Repo(str(workspace), _wait_for_lock=True) as repo:
            if before and not repo.status(targets=[pinned.name]):
                return False
            repo.add(folder)
    except DvcException as error:
        raise LoriError(f"dvc add {folder}: {' '.join(str(error).split())}") from error
    return pinned.read_bytes() != before
