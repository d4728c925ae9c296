"""Checks of this machine: before a run writes anything, and in `lori doctor`."""

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

#: Free bytes that a run needs at least; a real base model needs about ten times as much.
DISK_BYTES = 2**30
#: Free bytes that a single stage needs at least; adapters of small models are smaller.
STAGE_BYTES = 64 * 2**20
#: Free bytes for temporary files.
TEMPORARY_BYTES = 64 * 2**20
#: Files and folders of the workspace that a run writes to, if they exist.
WRITTEN = (
    ".lori", ".lori/rows", ".lori/prefect", ".dvc", ".dvc/tmp", ".dvc/cache", "data", "artifacts",
    "metrics", "report", "experiments", "mlruns", "mlflow.db", "params.yaml", "dvc.lock",
)  # fmt: skip

#: Checks one requirement; returns the finding as text, or raises `InputError` with what to do.
Check = Callable[[Path, Mapping[str, Any]], str]


def check(workspace: Path, params: Mapping[str, Any]) -> None:
    """Refuse to run if a requirement of a run is not met; write nothing.

    Args:
        workspace: the folder of the run.
        params: the run's parameters as plain values.

    Raises:
        InputError: the first requirement that is not met, and what to do.
    """
    for requirement in CHECKS.values():
        requirement(workspace, params)


def check_for_services(workspace: Path) -> None:
    """Refuse to start servers if one of their requirements is not met.

    Raises:
        InputError: as `check` does.
    """
    for requirement in (disk, temporary, proxy):
        requirement(workspace, {})


def check_for_stage(workspace: Path) -> None:
    """Refuse to start a single stage that could not write its outputs.

    Raises:
        InputError: as `check` does.
    """
    _writable(workspace)
    _room(workspace, STAGE_BYTES, "a stage needs 64 MiB (free some space)")
    temporary(workspace, {})


def check_without_dvc(workspace: Path, params: Mapping[str, Any]) -> None:
    """Refuse to run experiments in a folder without DVC if a requirement is not met.

    Raises:
        InputError: as `check` does.
    """
    for requirement in (disk, temporary, model_cache):
        requirement(workspace, params)


def disk(workspace: Path, params: Mapping[str, Any]) -> str:
    """Check that the workspace can be written and has free space."""
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
    """Check that temporary files go to TMPDIR, if it is set, and that there is free space."""
    named = os.environ.get("TMPDIR")
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise InputError(
            "TMPDIR: no folder for temporary files can be written (not /tmp, /var/tmp, nor this "
            "one); set it to a writable folder"
        ) from None
    if named and str(folder) != os.path.abspath(named):  # noqa: PTH100 - as tempfile does
        raise InputError(
            f"TMPDIR: {named!r} is not a writable folder, or it is full; correct that, or unset "
            "the variable"
        )
    return _room(folder, TEMPORARY_BYTES, "temporary files need 64 MiB; set TMPDIR to another")


def model_cache(workspace: Path, params: Mapping[str, Any]) -> str:
    """Check that there is a writable folder with free space for the base model."""
    name = str(params.get("model", {}).get("name_or_path") or "pypi:")
    if name.startswith(("pypi:", "random:")):
        folder = cache_folder()
        converted = (folder / "models" / name.replace(":", "-")).exists()
        needed = 0 if converted or name.startswith("random:") else DISK_BYTES
        return _room(folder, needed, "a model needs 1 GiB; set LORI_CACHE to another folder")
    if Path(name).expanduser().is_dir():
        return f"none is needed: the base is {name}"
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    existing = _existing(folder)
    if existing != folder and not os.access(existing, os.W_OK):
        raise InputError(
            f"{folder}: the hub's models cannot be stored there ({existing} cannot be written); "
            "set HF_HOME to a writable folder"
        )
    return f"{shutil.disk_usage(existing).free / 1e9:.0f} GB free at {folder}"


def proxy(workspace: Path, params: Mapping[str, Any]) -> str:
    """Check that Prefect's client can use the proxies in the environment."""
    named = {
        name: value for name, value in os.environ.items()
        if value and name.lower() in ("http_proxy", "https_proxy", "all_proxy")
    }  # fmt: skip
    if not named:
        return "none is set"
    import httpx

    for name, value in named.items():
        try:
            httpx.Client(proxy=value if "://" in value else f"http://{value}").close()
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{name}: Prefect's client cannot use this proxy ({why}); unset it, or set one "
                "such as http://host:3128"
            ) from None
    return f"{', '.join(sorted(named))}; not used for requests to this machine (no_proxy)"


def tracking(workspace: Path, params: Mapping[str, Any]) -> str:
    """Check that the address of MLflow holds no secret."""
    return f"runs are recorded at {store_of(workspace, params).uri}"


def versioning(workspace: Path, params: Mapping[str, Any]) -> str:
    """Check that DVC can work in the workspace."""
    versioned.check(workspace)
    return f"DVC can work in {workspace}"


#: The checks of a run, by the names that `lori doctor` shows.
CHECKS: dict[str, Check] = {
    "disk": disk,
    "workspace": versioning,
    "temporary": temporary,
    "model cache": model_cache,
    "proxy": proxy,
    "tracking": tracking,
}


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest parent folder that exists."""
    folders = (folder, *folder.absolute().parents)
    return next(path for path in folders if os.path.exists(path))  # noqa: PTH110 - never raises


def _room(folder: Path, needed: int, todo: str) -> str:
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise InputError(f"{folder}: {free / 2**20:.0f} MiB free; {todo}")
    return f"{free / 1e9:.0f} GB free at {folder}"
