"""What one state of a workspace says it was made from: `dvc.lock` and the small files beside it.

A state is the workspace as it stands, a commit of it, or what a pipeline left in `.lori/snapshots`
and in MLflow. `dvc.lock` alone holds the whole graph: each stage's inputs, parameters and outputs
with their hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.versioning import git
from lori_core.errors import InputError

LOCK = "dvc.lock"
DATA = "data.dvc"
PARAMS = "params.yaml"
#: What a pipeline keeps of a state.
KEPT = (LOCK, DATA, PARAMS)
SNAPSHOTS = Path(".lori/snapshots")


@dataclass(frozen=True)
class Entry:
    """A dependency or output of a stage: a path and what it held."""

    path: str
    md5: str
    size: int | None = None
    files: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the hash stands for a listing of files."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class StageEntry:
    """A stage as `dvc.lock` recorded it."""

    name: str
    command: str
    deps: Mapping[str, Entry]
    params: Mapping[str, Any]
    outs: Mapping[str, Entry]


class Snapshot:
    """One state, read on demand.

    Args:
        label: how it is called in messages.
        read: bytes of a small file by name; None where the state has none.
        workspace: the folder whose cache and remotes hold the artifacts.
    """

    def __init__(
        self, label: str, read: Callable[[str], bytes | None], workspace: Path, *, here: bool
    ) -> None:
        self.label = label
        self.read = read
        self.workspace = workspace
        #: Whether the files on disk belong to this state.
        self.here = here

    @cached_property
    def stages(self) -> dict[str, StageEntry]:
        """The stages of `dvc.lock` by name.

        Raises:
            InputError: it is no lock file, naming the line.
        """
        said = self._yaml(LOCK)
        found = said.get("stages") or {}
        try:
            return {str(name): _stage(str(name), entry) for name, entry in found.items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.label}: {LOCK}: damaged: a stage lacks what DVC writes ({error}); restore "
                f"it, as in git checkout -- {LOCK}"
            ) from None

    @cached_property
    def makers(self) -> dict[str, StageEntry]:
        """The stage of each output's path."""
        return {path: stage for stage in self.stages.values() for path in stage.outs}

    @cached_property
    def data(self) -> Entry | None:
        """What `data.dvc` pins; None where there is none."""
        outs = self._yaml(DATA).get("outs") or []
        return _entry(outs[0]) if outs else None

    def out(self, path: str) -> Entry | None:
        """Return the output of exactly this path."""
        stage = self.makers.get(path)
        return stage.outs[path] if stage else None

    def _yaml(self, name: str) -> dict[str, Any]:
        content = self.read(name)
        return {} if content is None else parse_yaml(content, f"{self.label}: {name}")


def parse_yaml(content: bytes, where: str) -> dict[str, Any]:
    """Parse YAML that DVC wrote, by libyaml where it is there: a hundred stages are 6,000 lines.

    Raises:
        InputError: it is not YAML, naming the line.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _numbers(yaml.load(content, Loader=loader)) or {}  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: damaged: not YAML; restore it from git") from None


def _numbers(value: Any) -> Any:
    """Read `1e-05` as the number it is in the YAML that DVC writes."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and value[:1] in "-+.0123456789" and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _stage(name: str, said: Mapping[str, Any]) -> StageEntry:
    params: dict[str, Any] = {}
    for values in (said.get("params") or {}).values():
        params |= values
    return StageEntry(
        name=name,
        command=str(said["cmd"]),
        deps={entry["path"]: _entry(entry) for entry in said.get("deps") or ()},
        params=params,
        outs={entry["path"]: _entry(entry) for entry in said.get("outs") or ()},
    )


def _entry(said: Mapping[str, Any]) -> Entry:
    return Entry(
        path=str(said["path"]),
        md5=str(said.get("md5") or said.get("etag") or ""),
        size=said.get("size"),
        files=said.get("nfiles"),
    )


def of_workspace(workspace: Path) -> Snapshot:
    """Return the state that a folder is in.

    Raises:
        InputError: nothing has run there yet.
    """
    if not (workspace / LOCK).is_file():
        raise InputError(f"{workspace / LOCK}: no such file: no stage has run here yet (lori run)")

    def read(name: str) -> bytes | None:
        path = workspace / name
        return path.read_bytes() if path.is_file() else None

    return Snapshot(str(workspace) if workspace != Path() else "here", read, workspace, here=True)


def of_commit(workspace: Path, revision: str) -> Snapshot | None:
    """Return the state of a commit; None where git knows no such commit.

    Raises:
        GitError: git cannot say it.
        InputError: the commit has no `dvc.lock`.
    """
    commit = git.commit(workspace, revision)
    if commit is None:
        return None

    def read(name: str) -> bytes | None:
        return git.show(workspace, commit, name)

    if read(LOCK) is None:
        raise InputError(f"{revision}: that commit has no {LOCK}; commit it after a run")
    return Snapshot(revision, read, workspace, here=False)


def of_folder(label: str, folder: Path, workspace: Path) -> Snapshot:
    """Return the state that a pipeline kept in a folder."""

    def read(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.is_file() else None

    return Snapshot(label, read, workspace, here=False)


def keep(workspace: Path, name: str) -> Path | None:
    """Copy the state's small files to `.lori/snapshots/NAME/snapshot`; None if nothing ran yet."""
    from lori_core.files import replaced_folder

    if not (workspace / LOCK).is_file():
        return None
    folder = workspace / SNAPSHOTS / name / "snapshot"
    with replaced_folder(folder) as work:
        for kept in KEPT:
            if (workspace / kept).is_file():
                (work / kept).write_bytes((workspace / kept).read_bytes())
    return folder


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each parameter of nested sections as `a.b.c`, value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
