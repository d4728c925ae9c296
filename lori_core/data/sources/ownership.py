"""Check that a pull writes and removes only files in `data/` that an earlier pull wrote."""

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
from lori_core.data.sources import split_files


def check_apart(where: str, source: SourceSection, folders: Iterable[Path]) -> None:
    """Refuse a source whose files are in a folder that the pull writes or removes.

    Args:
        where: the source's key, for the error.
        source: the source to read.
        folders: the tasks' folders, of this pull and of the earlier one.

    Raises:
        ConfigError: names the file.
    """
    for folder in folders:
        for path in split_files.paths_of(source):
            if Path(os.path.realpath(path)).is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"{where}.path: {path}: lies in {folder}, which lori pull writes; move it out "
                    "of there"
                )


def check_free(path: Path, lines: Iterable[str]) -> None:
    """Refuse to overwrite a file that no earlier pull wrote, unless its content is the same.

    Args:
        path: the file to write.
        lines: its new content.

    Raises:
        DataError: names the file.
    """
    if not path.is_file():
        return
    sha = hashlib.sha256()
    for line in lines:
        sha.update(line.encode())
    if sha.hexdigest() != sha256_file(path):
        raise DataError(f"{path}: lori pull did not write it, and would replace it; move it away")


def remove_former(folder: Path, former: Mapping[str, Any], tasks: Iterable[str]) -> list[str]:
    """Remove the files that an earlier pull wrote for tasks that no longer exist.

    Files that the earlier manifest does not list, or that changed since, are not removed.

    Args:
        folder: the data folder.
        former: the tasks of the earlier manifest, by name.
        tasks: the current tasks.

    Returns:
        One line for each folder that was removed, or that keeps other files.
    """
    report = []
    for stale in sorted(path for path in folder.iterdir() if path.is_dir()):
        if stale.name in tasks or stale.is_symlink():
            continue
        listed = former.get(stale.name, {}).get("splits", {})
        for split, entry in listed.items():
            path = stale / f"{split}.jsonl"
            if split in SPLITS and path.is_file() and sha256_file(path) == entry["sha256"]:
                path.unlink()
        with suppress(OSError):  # the folder is not empty
            stale.rmdir()
        if not stale.exists():
            report.append(f"{stale.name}: removed, no longer a task")
        elif listed:
            report.append(
                f"{stale.name}: no longer a task; files that lori pull did not write stay"
            )
    return report
