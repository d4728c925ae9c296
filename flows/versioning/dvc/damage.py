"""Check the files that every command needs before DVC reads them.

DVC's own messages about damaged files say less and differ between its commands.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from flows.versioning.dvc import dvc_files
from flows.versioning.dvc.lock_file import read_lock, read_pin
from flows.versioning.dvc.yaml_document import parsed
from lori_core.core.errors import InputError

#: The file that defines the stages, and what to do if it cannot be used.
DEFINITION = "dvc.yaml"
MEND_DEFINITION = "restore it, as in git checkout -- dvc.yaml"
#: Folders and files of DVC and of this project in a workspace.
FOLDERS = (".lori", ".dvc", ".dvc/tmp", ".dvc/cache")

FILES = (DEFINITION, "dvc.lock", "data.dvc", ".dvc/config", ".dvc/tmp/lock", ".dvc/tmp/rwlock")


def check_files(workspace: Path, *, pin: bool = True, definition: bool = True) -> None:
    """Refuse a workspace whose files are damaged: truncated, with merge conflicts, and so on.

    Args:
        workspace: the folder.
        pin: whether to check `data.dvc`; a pull writes it anew.
        definition: whether `dvc.yaml` must exist if there is a `.dvc`.

    Raises:
        InputError: a file is damaged; the message names it and what to do.
    """
    for name in FOLDERS:
        if (workspace / name).is_file():
            raise InputError(f"{name}: a file stands where a folder should: move it away")
    for name in FILES:
        if (workspace / name).is_dir():
            raise InputError(f"{name}: a folder stands where a file should: move it away")
    for name in ("config", "config.local"):
        _check_settings(workspace / ".dvc" / name, f".dvc/{name}")
    content = dvc_files.read(workspace / DEFINITION)
    if content is None and definition and (workspace / ".dvc").is_dir():
        raise InputError(f"{DEFINITION}: no such file; {MEND_DEFINITION}")
    if content is not None:
        _check_definition(content)
    content = dvc_files.read(workspace / "dvc.lock")
    if content is not None:
        read_lock(content, "dvc.lock")
    content = dvc_files.read(workspace / "data.dvc") if pin else None
    if content:
        read_pin(content, "data.dvc")


def _check_definition(content: bytes) -> None:
    definition = parsed(content, DEFINITION, MEND_DEFINITION, by_hand=True)
    stages = definition.get("stages")
    if not isinstance(stages, dict) or not stages:
        raise InputError(f"{DEFINITION}: damaged: it defines no stages; {MEND_DEFINITION}")


def _check_settings(path: Path, name: str) -> None:
    """Refuse a DVC config file that is no INI file; DVC checks its values itself."""
    if dvc_files.read(path) is None:
        return
    configobj: Any = import_module("configobj")
    try:
        configobj.ConfigObj(str(path), encoding="utf-8", interpolation=False)
    except (configobj.ConfigObjError, UnicodeError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{name}: damaged: {why}; restore it, as in git checkout -- {name}"
        ) from None
