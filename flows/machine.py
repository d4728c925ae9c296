"""What a run needs of this machine: a run looks before it writes anything, the doctor whenever."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows.tracking.mlflow_store import store_of
from flows.versioning import workspace as versioned
from lori_core.core.cache import cache_folder
from lori_core.core.errors import InputError

#: Below this no run begins; below ten times this a real base model does not fit.
DISK_BYTES = 2**30
#: Below this no single stage begins: the adapters of small models take less.
STAGE_BYTES = 64 * 2**20
#: What goes through files that are deleted at once.
TEMPORARY_BYTES = 64 * 2**20
#: What a run writes to, besides the workspace itself, where it is there already.
WRITTEN = (
    ".lori", ".lori/rows", ".lori/prefect", ".dvc", ".dvc/tmp", ".dvc/cache", "data", "artifacts",
    "metrics", "report", "experiments", "mlruns", "mlflow.db", "params.yaml", "dvc.lock",
)  # fmt: skip

#: Looks at one thing; returns what it saw, and raises `InputError` with what to do.
Look = Callable[[Path, Mapping[str, Any]], str]


def check(workspace: Path, params: Mapping[str, Any]) -> None:
    """Refuse to run where something is missing that a run needs; nothing is written.

    Args:
        workspace: where it would run.
        params: the parameters it would run with, as plain values.

    Raises:
        InputError: the first thing that is missing, and what to do.
    """
    for look in LOOKS.values():
        look(workspace, params)


def check_for_services(workspace: Path) -> None:
    """Likewise refuse to start servers, which need no parameters.

    Raises:
        InputError: as `check` does.
    """
    for look in (disk, temporary, proxy):
        look(workspace, {})


def check_for_stage(workspace: Path) -> None:
    """Likewise refuse to begin a single stage, which would fail when it writes what it made.

    Raises:
        InputError: as `check` does.
    """
    _writable(workspace)
    _room(workspace, STAGE_BYTES, "a stage needs 64 MiB (free some space)")
    temporary(workspace, {})


def disk(workspace: Path, params: Mapping[str, Any]) -> str:
    """The workspace can be written, and has room."""
    if "?" in str(workspace):
        raise InputError(f"{workspace}: '?' ends a path in SQLite's addresses; rename the folder")
    _writable(workspace)
    return _room(workspace, DISK_BYTES, "a run needs 1 GiB (free some space)")


def _writable(workspace: Path) -> None:
    for path in (workspace, *(workspace / name for name in WRITTEN)):
        if os.path.lexists(path) and not os.access(path, os.W_OK):
            if path.exists() and os.statvfs(path).f_flag & os.ST_RDONLY:
                raise InputError(
                    f"{path}: the file system is read-only; mount it read-write, or work in a "
                    "clone elsewhere"
                )
            raise InputError(
                f"{path}: cannot be written by user {os.getuid()}; give this user the workspace "
                "(chown), or work in a clone of your own"
            )


def temporary(workspace: Path, params: Mapping[str, Any]) -> str:
    """Temporary files go where the user wants them, and there is room."""
    named = os.environ.get("TMPDIR")
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise InputError(
            "TMPDIR: no folder for temporary files can be written (not /tmp, /var/tmp, nor this "
            "one); set it to one that can"
        ) from None
    if named and str(folder) != os.path.abspath(named):  # noqa: PTH100 - as tempfile does
        raise InputError(
            f"TMPDIR: {named!r} is no folder that can be written, or it is full; make it so, or "
            "unset the variable"
        )
    return _room(folder, TEMPORARY_BYTES, "temporary files need 64 MiB; set TMPDIR to another")


def model_cache(workspace: Path, params: Mapping[str, Any]) -> str:
    """There is a place for the base model, where one is converted or downloaded."""
    name = str(params.get("model", {}).get("name_or_path") or "pypi:")
    if name.startswith(("pypi:", "random:")):
        folder = cache_folder()
        made = (folder / "models" / name.replace(":", "-")).exists()
        needed = 0 if made or name.startswith("random:") else DISK_BYTES
        return _room(folder, needed, "a model needs 1 GiB; set LORI_CACHE to another folder")
    if Path(name).expanduser().is_dir():
        return f"none is needed: the base is {name}"
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    there = _existing(folder)
    if there != folder and not os.access(there, os.W_OK):
        raise InputError(
            f"{folder}: the hub's models cannot be kept there ({there} cannot be written); set "
            "HF_HOME to a folder that can be"
        )
    return f"{shutil.disk_usage(there).free / 1e9:.0f} GB free at {folder}"


def proxy(workspace: Path, params: Mapping[str, Any]) -> str:
    """Prefect's client can be used with the proxies that are named."""
    named = {
        name: value for name, value in os.environ.items()
        if value and name.lower() in ("http_proxy", "https_proxy", "all_proxy")
    }  # fmt: skip
    if not named:
        return "none is named"
    import httpx

    for name, value in named.items():
        try:
            httpx.Client(proxy=value if "://" in value else f"http://{value}").close()
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{name}: Prefect's client cannot use this proxy ({why}); unset it, or name one "
                "as in http://host:3128"
            ) from None
    return f"{', '.join(sorted(named))}; requests to this machine go past it (no_proxy)"


def tracking(workspace: Path, params: Mapping[str, Any]) -> str:
    """The address of MLflow can be shown and kept."""
    return f"runs are recorded at {store_of(workspace, params).uri}"


def versioning(workspace: Path, params: Mapping[str, Any]) -> str:
    """DVC can work here."""
    versioned.check(workspace)
    return f"DVC can work in {workspace}"


#: By the names that the doctor shows.
LOOKS: dict[str, Look] = {
    "disk": disk,
    "workspace": versioning,
    "temporary": temporary,
    "model cache": model_cache,
    "proxy": proxy,
    "tracking": tracking,
}


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    folders = (folder, *folder.absolute().parents)
    return next(path for path in folders if os.path.exists(path))  # noqa: PTH110 - never raises


def _room(folder: Path, needed: int, todo: str) -> str:
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise InputError(f"{folder}: {free / 2**20:.0f} MiB free; {todo}")
    return f"{free / 1e9:.0f} GB free at {folder}"
