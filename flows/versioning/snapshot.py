"""Snapshots of a workspace: `dvc.lock` and the small files beside it at one moment.

A snapshot is the workspace as it is now, a commit of it, or the files that a pipeline saved in
`.lori/snapshots` and in MLflow. `dvc.lock` holds the whole lineage: each stage's inputs, parameters
and outputs with their hashes.
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
METRICS = "metrics"
#: The files of a saved snapshot, beside those of `METRICS`.
FILES = (LOCK, DATA, PARAMS)
SNAPSHOTS = Path(".lori/snapshots")


class Snapshot:
    """One snapshot, whose files are read on demand.

    Args:
        label: its name in messages.
        read: returns the bytes of a small file by name; None if the snapshot has no such file.
        workspace: the folder whose cache and remotes hold the artifacts.
        here: whether the files on disk belong to this snapshot.
    """

    def __init__(
        self, label: str, read: Callable[[str], bytes | None], workspace: Path, *, here: bool
    ) -> None:
        self.label = label
        self.read = read
        self.workspace = workspace
        self.here = here

    @cached_property
    def stages(self) -> Mapping[str, StageEntry]:
        """The stages of `dvc.lock` by name.

        Raises:
            InputError: it is damaged; the message names the line or the stage.
        """
        content = self.read(LOCK)
        return {} if content is None else read_lock(content, f"{self.label}: {LOCK}")

    @cached_property
    def producers(self) -> dict[str, StageEntry]:
        """The stage that wrote each output, by the output's path."""
        return {path: stage for stage in self.stages.values() for path in stage.outs}

    @cached_property
    def data(self) -> Entry | None:
        """The folder that `data.dvc` pins, with its hash; None if there is no `data.dvc`.

        Raises:
            InputError: it is damaged.
        """
        content = self.read(DATA)
        return None if content is None else read_pin(content, f"{self.label}: {DATA}")

    def out(self, path: str) -> Entry | None:
        """Return the output with exactly this path; None if no stage wrote it."""
        stage = self.producers.get(path)
        return stage.outs[path] if stage else None


def of_workspace(workspace: Path) -> Snapshot:
    """Return the snapshot of a workspace as it is now.

    Raises:
        InputError: no stage has run there yet.
    """
    if not os.path.lexists(workspace / LOCK):
        raise InputError(f"{workspace / LOCK}: no such file: no stage has run here yet (lori run)")

    def read(name: str) -> bytes | None:
        return dvc_files.read(workspace / name)

    return Snapshot(str(workspace) if workspace != Path() else "here", read, workspace, here=True)


def of_commit(workspace: Path, revision: str) -> Snapshot | None:
    """Return the snapshot of a commit; None if git knows no such commit.

    Raises:
        GitError: git fails.
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
    """Return the snapshot that a pipeline saved in a folder."""

    def read(name: str) -> bytes | None:
        return dvc_files.read(folder / name)

    return Snapshot(label, read, workspace, here=False)


def save(workspace: Path, name: str) -> Path | None:
    """Save a snapshot to `.lori/snapshots/NAME/snapshot`; return None if no stage has run yet."""
    from lori_core.core.files.atomic import replaced_folder

    if not (workspace / LOCK).is_file():
        return None
    folder = workspace / SNAPSHOTS / name / "snapshot"
    with replaced_folder(folder) as work:
        copy_files(workspace, work)
    return folder


def copy_files(workspace: Path, folder: Path) -> None:
    """Copy a snapshot's files and its metrics; remove secrets from the parameters.

    A file of metrics with a secret is left out: without the secret it would have another hash.
    """
    for name in FILES:
        if (workspace / name).is_file():
            content = (workspace / name).read_bytes()
            (folder / name).write_bytes(_clean(content) if name == PARAMS else content)
    for path in sorted(p for p in (workspace / METRICS).rglob("*.json") if p.is_file()):
        content = path.read_bytes()
        if _clean(content) == content:
            copy = folder / path.relative_to(workspace)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)


def _clean(content: bytes) -> bytes:
    text = content.decode("utf-8", "surrogateescape")
    return redact(text).encode("utf-8", "surrogateescape")


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each parameter of nested sections as dotted name (`a.b.c`) and value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
