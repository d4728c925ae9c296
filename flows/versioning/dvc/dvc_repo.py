"""DVC's repository, opened so that a kill at any moment leaves its small files whole.

DVC writes `dvc.lock` and its list of busy paths, `.dvc/tmp/rwlock`, in place: a process killed
halfway leaves a file that no DVC command can read any more. Here they are written beside and
renamed. Whoever else was cut off writing the list, it is read as empty. What killed processes hold
in it is dropped when the next pipeline starts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from flows.environment import quiet_environment
from flows.versioning.dvc import dvc_files
from lori_core.core.files.atomic import replaced_file


@contextmanager
def opened(workspace: Path) -> Iterator[Any]:
    """Open a workspace's DVC repository; its lock is waited for wherever DVC takes it.

    Raises:
        InputError: as `dvc_files.check`.
    """
    quiet_environment()
    dvc_files.check(workspace)
    from dvc.repo import Repo

    with Repo(str(workspace), _wait_for_lock=True) as repo:
        repo.fs.open = _whole(repo.fs.open, rwlock_file(workspace))
        yield repo


@contextmanager
def parameters_read_once() -> Iterator[None]:
    """Let DVC parse a file of parameters once for all stages, not once for each of them.

    By itself it takes a time that grows with the square of the number of tasks: it also walks the
    whole file for each key. Files may not change meanwhile.
    """
    from dvc.dependency import param

    real, loaded = param.read_param_file, dict[str, Any]()

    def read(fs: Any, path: str, keys: list[str] | None = None, flatten: bool = False) -> Any:
        if not flatten or not keys:
            return real(fs, path, keys, flatten)
        if path not in loaded:
            loaded[path] = param.load_path(path, fs)
        found = {key: value_at(loaded[path], key) for key in keys}
        return {key: value for key, value in found.items() if value is not ABSENT}

    param.read_param_file = read
    try:
        yield
    finally:
        param.read_param_file = real


#: Stands for a key that is not there.
ABSENT = object()


def value_at(values: Any, key: str) -> Any:
    """Return the value of a dotted key in nested sections; `ABSENT` where there is none."""
    for part in key.split("."):
        values = values.get(part, ABSENT) if isinstance(values, Mapping) else ABSENT
    return values


def rwlock_file(workspace: Path) -> Path:
    """Return where DVC lists the paths that are being read and written, and by whom."""
    return workspace / ".dvc" / "tmp" / "rwlock"


def read_rwlock(path: Path) -> dict[str, Any] | None:
    """Return that list, empty where there is none; `None` if it is damaged, as by a kill."""
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for _, _, entry in _held(entries):
            int(entry["pid"])
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
    return entries


def dead_locks(entries: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what processes that are gone hold: `read` or `write`, the path, DVC's own entry."""
    for kind, path, entry in _held(entries):
        if not psutil.pid_exists(int(entry["pid"])):
            yield kind, path, entry


def _held(entries: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for kind in ("read", "write"):
        for path, held in entries.get(kind, {}).items():
            for entry in held if isinstance(held, list) else [held]:
                yield kind, path, entry


def drop_dead_locks(workspace: Path) -> None:
    """Take out of DVC's list what killed processes hold.

    DVC does so only where one of them is in its way; until then the number of a dead process may be
    given to another, which would then hold the path for as long as it lives. Call it holding the
    pipeline lock: on a shared folder, processes of other machines look dead here.
    """
    if not any(dead_locks(read_rwlock(rwlock_file(workspace)) or {})):
        return
    from dvc import rwlock

    with opened(workspace) as repo:
        hard = repo.config["core"].get("hardlink_lock", False)
        with rwlock._edit_rwlock(repo.tmp_dir, repo.fs, hard) as entries:
            for kind, path, entry in list(dead_locks(entries)):
                release = rwlock._release_read if kind == "read" else rwlock._release_write
                release(entries, entry, [path])


def _whole(real: Callable[..., Any], rwlock: Path) -> Callable[..., Any]:
    def opened_file(path: Any, mode: str = "r", **options: Any) -> Any:
        if "w" in mode:
            return _replacing(Path(path), mode, **options)
        # DVC reads the list only while it holds the lock on it: nobody is writing it now.
        if Path(path) == rwlock and read_rwlock(rwlock) is None:
            return io.StringIO("{}")
        return real(path, mode, **options)

    return opened_file


@contextmanager
def _replacing(path: Path, mode: str, **options: Any) -> Iterator[IO[Any]]:
    with replaced_file(path) as work, work.open(mode, **options) as file:
        yield file
