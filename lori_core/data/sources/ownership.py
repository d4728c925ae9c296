"""Which files in `data/` a pull may write and remove: those of an earlier one, and no others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lori_core.config import SourceSection
from lori_core.core.errors import ConfigError, DataError
from lori_core.core.files.atomic import sha256_file
from lori_core.data.example import SPLITS


def check_apart(where: str, source: SourceSection, folders: Iterable[Path]) -> None:
    """Refuse a source whose files lie where a pull writes or removes: it would lose them.

    Args:
        where: the source's key, for the error.
        source: what is read.
        folders: the folders of the tasks, now and at the earlier pull.

    Raises:
        ConfigError: naming the file.
    """
    for folder in folders:
        for path in paths_of(source):
            if Path(os.path.realpath(path)).is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{where}.path: {path}: lies in {folder}, which lori pull writes; move it out "
                    "of there"
                )


def paths_of(source: SourceSection) -> list[Path]:
    """Return the folder (or file) of a local source, then the files it names; none of another."""
    if not source.path:
        return []
    root = Path(os.path.expandvars(source.path)).expanduser()
    lists = ([named] if isinstance(named, str) else named for named in source.files.values())
    return [root, *(root / name for names in lists for name in names)]


def check_free(path: Path, lines: Iterable[str]) -> None:
    """Refuse to write over a file that no earlier pull wrote, unless it holds the same.

    Raises:
        DataError: naming it.
    """
    if not path.is_file():
        return
    sha = hashlib.sha256()
    for line in lines:
        sha.update(line.encode())
    if sha.hexdigest() != sha256_file(path):
        raise DataError(f"{path}: lori pull did not write it, and would replace it; move it away")


def remove_former(folder: Path, former: Mapping[str, Any], tasks: Iterable[str]) -> list[str]:
    """Remove what an earlier pull wrote for tasks that are none any more, and empty folders.

    Files that the earlier manifest does not list, or that were changed since, are left alone.

    Args:
        folder: the data folder.
        former: the tasks of the earlier manifest, by name.
        tasks: the tasks there are now.

    Returns:
        One line for each folder that was removed, or would have been.
    """
    said = []
    for stale in sorted(path for path in folder.iterdir() if path.is_dir()):
        if stale.name in tasks or stale.is_symlink():
            continue
        listed = former.get(stale.name, {}).get("splits", {})
        for split, entry in listed.items():
            path = stale / f"{split}.jsonl"
            if split in SPLITS and path.is_file() and sha256_file(path) == entry["sha256"]:
                path.unlink()
        with suppress(OSError):  # something else is in it
            stale.rmdir()
        if not stale.exists():
            said.append(f"{stale.name}: removed, no longer a task")
        elif listed:
            said.append(f"{stale.name}: no longer a task; files that lori pull did not write stay")
    return said
