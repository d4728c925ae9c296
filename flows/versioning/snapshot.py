"""What one state of a workspace says it was made from: `dvc.lock` and the small files beside it.

A state is the workspace as it stands, a commit of it, or what a pipeline left in `.lori/snapshots`
and in MLflow. `dvc.lock` alone holds the whole graph: each stage's inputs, parameters and outputs
with their hashes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.versioning import git
from flows.versioning.dvc import dvc_files
from flows.versioning.dvc.lock_file import Entry, StageEntry, read_lock, read_pin
from lori_core.core.errors import InputError
from lori_core.core.redaction import redact

LOCK = "dvc.lock"
DATA = "data.dvc"
PARAMS = "params.yaml"
#: What a pipeline keeps of a state.
KEPT = (LOCK, DATA, PARAMS)
SNAPSHOTS = Path(".lori/snapshots")


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
            InputError: it is damaged, naming the line or the stage.
        """
        content = self.read(LOCK)
        return {} if content is None else read_lock(content, f"{self.label}: {LOCK}")

    @cached_property
    def makers(self) -> dict[str, StageEntry]:
        """The stage of each output's path."""
        return {path: stage for stage in self.stages.values() for path in stage.outs}

    @cached_property
    def data(self) -> Entry | None:
        """What `data.dvc` pins; None where there is none.

        Raises:
            InputError: it is damaged.
        """
        content = self.read(DATA)
        return None if content is None else read_pin(content, f"{self.label}: {DATA}")

    def out(self, path: str) -> Entry | None:
        """Return the output of exactly this path."""
        stage = self.makers.get(path)
        return stage.outs[path] if stage else None


def of_workspace(workspace: Path) -> Snapshot:
    """Return the state that a folder is in.

    Raises:
        InputError: nothing has run there yet.
    """
    if not os.path.lexists(workspace / LOCK):
        raise InputError(f"{workspace / LOCK}: no such file: no stage has run here yet (lori run)")

    def read(name: str) -> bytes | None:
        return dvc_files.read(workspace / name)

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
        return dvc_files.read(folder / name)

    return Snapshot(label, read, workspace, here=False)


def keep(workspace: Path, name: str) -> Path | None:
    """Copy the state's small files to `.lori/snapshots/NAME/snapshot`; None if nothing ran yet."""
    from lori_core.core.files.atomic import replaced_folder

    if not (workspace / LOCK).is_file():
        return None
    folder = workspace / SNAPSHOTS / name / "snapshot"
    with replaced_folder(folder) as work:
        copy_kept(workspace, work)
    return folder


def copy_kept(workspace: Path, folder: Path) -> None:
    """Copy a state's small files, the parameters without a secret that may stand there since."""
    for name in KEPT:
        if (workspace / name).is_file():
            content = (workspace / name).read_bytes()
            if name == PARAMS:
                content = redact(content.decode("utf-8", "surrogateescape")).encode(
                    "utf-8", "surrogateescape"
                )
            (folder / name).write_bytes(content)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each parameter of nested sections as `a.b.c`, value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
