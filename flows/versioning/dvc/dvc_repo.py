"""Open DVC's repository so that killing the process never leaves a partly written small file.

DVC writes `dvc.lock` and its list of path locks, `.dvc/tmp/rwlock`, in place: a process killed
halfway leaves a file that no DVC command can read. Here files are written under another name and
renamed. A damaged list of path locks is read as empty. The path locks of killed processes are
dropped when the next pipeline starts.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import psutil

from flows.environment import quiet_environment
from flows.versioning.dvc import dvc_files, lock_io
from lori_core.core.files.atomic import replaced_file

#: The modules that DVC imports when it opens a repository and runs a stage.
MODULES = (
    "configobj", "dvc.cachemgr", "dvc.data_cloud", "dvc.dirs", "dvc.repo.artifacts",
    "dvc.repo.datasets", "dvc.repo.graph", "dvc.repo.index", "dvc.repo.metrics", "dvc.repo.params",
    "dvc.repo.plots", "dvc.repo.stage", "dvc.rwlock", "dvc.scm", "dvc.utils.strictyaml",
    "dulwich.ignore", "dulwich.index", "dulwich.worktree",
    "dvc_data.hashfile._progress", "dvc_data.hashfile.db.local", "dvc_data.hashfile.status",
    "encodings.utf_8_sig", "fsspec.implementations.memory", "platformdirs.unix", "pyparsing",
    "ruamel.yaml", "scmrepo.git", "yaml.cyaml",
)  # fmt: skip


@contextmanager
def opened(workspace: Path, *, is_checked: bool = False) -> Iterator[Any]:
    """Open a workspace's DVC repository, which waits for DVC's lock instead of failing.

    Args:
        workspace: the folder.
        is_checked: whether the caller's flow has checked DVC's files (`dvc_files.check`).

    Raises:
        InputError: one of DVC's files is refused by `dvc_files.check`.
    """
    quiet_environment()
    if not is_checked:
        dvc_files.check(workspace)
    from dvc.repo import Repo

    lock_io.install()
    with Repo(str(workspace), _wait_for_lock=True) as repo:
        repo.fs.open = _atomic_open(repo.fs.open, rwlock_file(workspace))
        yield repo


class Commits:
    """Commits stages whose outputs are complete, as `dvc commit -f` does.

    DVC's command parses all stages and writes the whole `dvc.lock` for each stage, which takes
    longer than many stages. Here the stages are parsed once, at the first commit, and the entries
    of several stages are written together. A process that is killed before `write` loses entries
    only: what it saved can be committed again.
    """

    def __init__(self, repo: Any) -> None:
        self._repo = repo
        self._saved: list[Any] = []

    @cached_property
    def _stages(self) -> dict[str, Any]:
        return {stage.addressing: stage for stage in self._repo.index.stages}

    def save(self, name: str) -> None:
        """Put a stage's outputs into the cache; `name` is the stage's as DVC shows it."""
        stage = self._stages[name]
        with self._repo.lock:
            # Not into the run cache: a point's name holds its settings, so it finds its entry.
            stage.save(run_cache=False)
            stage.commit()
        self._saved.append(stage)

    def write(self) -> None:
        """Write the entries of the saved stages into `dvc.lock`."""
        by_file = defaultdict(list)
        for stage in self._saved:
            by_file[stage.dvcfile].append(stage)
        with self._repo.lock:
            for file, stages in by_file.items():
                file.dump_stages(stages, update_pipeline=False)
        self._saved = []


@contextmanager
def committing(workspace: Path) -> Iterator[Commits]:
    """Yield what commits stages; what was saved is written at the end, also after an error.

    Parameter files must not change inside the `with` block.
    """
    with opened(workspace) as repo, parameters_read_once():
        commits = Commits(repo)
        try:
            yield commits
        finally:
            commits.write()


@contextmanager
def files_hashed_once() -> Iterator[None]:
    """Let DVC look up a dependency's hash once for all stages, instead of once for each stage.

    The files must not change inside the `with` block.
    """
    from dvc.dependency.base import Dependency

    real, known = Dependency.get_hash, dict[tuple[str, ...], Any]()

    def get_hash(self: Any) -> Any:
        if type(self) is not Dependency:  # another repository's, a database's
            return real(self)
        key = (self.protocol, self.fs_path, self.hash_name)
        if key not in known:
            known[key] = real(self)
        return known[key]

    Dependency.get_hash = get_hash
    try:
        yield
    finally:
        del Dependency.get_hash  # it is inherited


@contextmanager
def parameters_read_once() -> Iterator[None]:
    """Let DVC parse a parameter file once for all stages, instead of once for each stage.

    DVC's own time grows with the square of the number of tasks, since it also walks the whole file
    for each key. The files must not change inside the `with` block.
    """
    from dvc.dependency import param

    real, loaded = param.read_param_file, dict[str, Any]()

    def read(fs: Any, path: str, keys: list[str] | None = None, flatten: bool = False) -> Any:
        if not flatten or not keys:
            return real(fs, path, keys, flatten)
        if path not in loaded:
            loaded[path] = param.load_path(path, fs)
        values = {key: value_at(loaded[path], key) for key in keys}
        return {key: value for key, value in values.items() if value is not ABSENT}

    param.read_param_file = read
    try:
        yield
    finally:
        param.read_param_file = real


#: The value of a missing key.
ABSENT = object()


def value_at(values: Any, key: str) -> Any:
    """Return the value of a dotted key in nested sections; `ABSENT` if the key is missing."""
    for part in key.split("."):
        values = values.get(part, ABSENT) if isinstance(values, Mapping) else ABSENT
    return values


def rwlock_file(workspace: Path) -> Path:
    """Return DVC's list of path locks: the paths that processes are reading or writing."""
    return workspace / ".dvc" / "tmp" / "rwlock"


def read_rwlock(path: Path) -> dict[str, Any] | None:
    """Return the list of path locks, empty if there is no file; None if it is damaged."""
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
    """Yield the path locks of dead processes: `read` or `write`, the path, DVC's entry."""
    for kind, path, entry in _held(entries):
        if not psutil.pid_exists(int(entry["pid"])):
            yield kind, path, entry


def _held(entries: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for kind in ("read", "write"):
        for path, held in entries.get(kind, {}).items():
            for entry in held if isinstance(held, list) else [held]:
                yield kind, path, entry


def drop_dead_locks(workspace: Path) -> None:
    """Drop the path locks of killed processes from DVC's list.

    DVC drops a dead lock only when it needs the path; until then the process id may be reused by
    another process, which would hold the path as long as it lives. The caller must hold the
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


def _atomic_open(real: Callable[..., Any], rwlock: Path) -> Callable[..., Any]:
    def opened_file(path: Any, mode: str = "r", **options: Any) -> Any:
        if "w" in mode:
            return _replacing(Path(path), mode, **options)
        # DVC reads the list only while it holds the list's lock, so that nobody writes it now.
        if Path(path) == rwlock and read_rwlock(rwlock) is None:
            return io.StringIO("{}")
        return real(path, mode, **options)

    return opened_file


@contextmanager
def _replacing(path: Path, mode: str, **options: Any) -> Iterator[IO[Any]]:
    with replaced_file(path) as work, work.open(mode, **options) as file:
        yield file
