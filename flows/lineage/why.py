"""`lori why`, `lori diff`, `lori restore`: resolve a name to an artifact, and read its lineage."""

from __future__ import annotations

from pathlib import Path

from flows.lineage import measured, provenance
from flows.lineage.ancestry import Lineage, find, primary
from flows.lineage.named import Named
from flows.versioning import git, snapshot
from flows.versioning.git import GitError
from flows.versioning.objects import Objects
from flows.versioning.snapshot import Snapshot
from lori_core.core.errors import InputError


def resolve(word: str, workspace: Path) -> Named:
    """Return the snapshot and artifact that a name on the command line refers to.

    Args:
        word: a path or a stage, or either at a commit (`PATH@REVISION`); a commit, a saved
            snapshot (`.lori/snapshots/…`) or another workspace, for a whole snapshot; an MLflow
            run; a registered model (`models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME`).
        workspace: the folder of the workspace.

    Raises:
        InputError: nothing has that name; the message suggests the nearest names, and gives git's
            error if git failed, since the name may be a commit's.
    """
    if word.startswith("models:/") or _is_run(word):
        from flows.lineage.mlflow_names import of_model, of_run

        return of_model(word, workspace) if word.startswith("models:/") else of_run(word, workspace)
    here = _here(workspace)
    if here is not None and _is_stage(word, here):  # a branch may have the name of a task
        return Named(here, find(here, word))
    try:
        return _at_commit(word, workspace, here) or _by_name(word, workspace, here)
    except GitError as failure:
        # A name that is no commit's can be resolved without git.
        path, _, _ = word.rpartition("@")
        if path and _on_disk(path, workspace, here):
            raise
        try:
            return _without_commit(word, workspace, here)
        except InputError as error:
            raise InputError(f"{error}; if a commit was meant: {failure}") from None


def _at_commit(word: str, workspace: Path, here: Snapshot | None) -> Named | None:
    """Return what `PATH@REVISION` names; None if the word is not of that form."""
    path, _, revision = word.rpartition("@")
    if not path or not revision or Path(word).exists():
        return None
    committed = snapshot.of_commit(workspace, revision)
    if committed is not None:
        return Named(committed, find(committed, _inside(path, workspace)))
    if _on_disk(path, workspace, here) and not _on_disk(word, workspace, here):
        more = "; this clone is shallow: git fetch --unshallow" if git.is_shallow(workspace) else ""
        raise InputError(f"{word}: git knows no commit {revision!r} here{more}")
    return None


def _by_name(word: str, workspace: Path, here: Snapshot | None) -> Named:
    named = _on_disk(word, workspace, here)
    if named is not None:
        return named
    whole = _whole(word, workspace)
    if whole is not None:
        return Named(whole, None)
    return _without_commit(word, workspace, here)


def _on_disk(word: str, workspace: Path, here: Snapshot | None) -> Named | None:
    try:
        return _without_commit(word, workspace, here)
    except InputError:
        return None


def _without_commit(word: str, workspace: Path, here: Snapshot | None) -> Named:
    """Return what a word names in another workspace or in this one as they are now."""
    other = _other_workspace(word, workspace)
    if other is not None:
        return other
    here = here or snapshot.of_workspace(workspace)  # raises if no stage has run
    return Named(here, find(here, _inside(word, workspace)))


def _is_stage(word: str, here: Snapshot) -> bool:
    try:
        return word in here.stages
    except InputError:  # the record here is damaged; a commit's may not be
        return False


def _is_run(word: str) -> bool:
    return len(word) == 32 and all(letter in "0123456789abcdef" for letter in word)


def _here(workspace: Path) -> Snapshot | None:
    return snapshot.of_workspace(workspace) if (workspace / snapshot.LOCK).is_file() else None


def _inside(word: str, workspace: Path) -> str:
    """Return a path relative to the workspace, without a slash at its end."""
    path = Path(word)
    if path.is_absolute() and path.is_relative_to(workspace.resolve()):
        path = path.relative_to(workspace.resolve())
    return path.as_posix().rstrip("/")


def _other_workspace(word: str, workspace: Path) -> Named | None:
    """Return what a path names in another workspace; None if it is in no other workspace."""
    path = Path(word)
    if not path.exists() or path.resolve().is_relative_to(workspace.resolve()):
        return None
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / snapshot.LOCK).is_file():
            other = snapshot.of_workspace(folder)
            inside = path.resolve().relative_to(folder).as_posix()
            return Named(other, None if inside == "." else find(other, inside))
    return None


def _whole(word: str, workspace: Path) -> Snapshot | None:
    """Return the whole snapshot that a word names: the workspace's, a saved one, or a commit's."""
    if word in (".", ""):
        return _here(workspace)
    folder = workspace / word
    if (folder / snapshot.LOCK).is_file():
        return snapshot.of_folder(word, folder, workspace)
    return snapshot.of_commit(workspace, word)


def lineage_of(named: Named, *, remote: bool = True) -> Lineage:
    """Return the lineage of an artifact or snapshot, with each node's presence, run and scores.

    Scores from a file of metrics that differs from `dvc.lock` are left out and become a problem.

    Args:
        named: the artifact or snapshot.
        remote: whether to look for bytes in the remote.
    """
    recorded = named.snapshot
    objects = Objects(recorded.workspace, remote=remote)
    all_outputs = [primary(stage) for stage in recorded.stages.values() if stage.outs]
    lineage = Lineage(recorded, objects, [named.path] if named.path else all_outputs)
    lineage.locate()
    runs = provenance.runs(recorded.workspace)
    for node in lineage.nodes.values():
        run = runs.get(f"{node.name}={node.entry.md5}")
        if run:
            node.facts["made"] = run
        if node.stage is not None:
            scores, problem = measured.scores(recorded, node.name, node.entry.md5)
            if scores:
                node.facts["scores"] = scores
            if problem:
                lineage.problems.append(problem)
    return lineage


def restore(word: str, out: Path, workspace: Path, *, force: bool = False) -> tuple[str, int]:
    """Write the recorded bytes of an artifact or of data to `out`; return its name and its bytes.

    Raises:
        InputError: nothing has that name, or `out` exists and `force` is false.
        LoriError: the bytes are gone.
    """
    named = resolve(word, workspace)
    if named.path is None:
        raise InputError(f"{word}: names a whole snapshot; name one artifact, as in PATH@{word}")
    objects = Objects(named.snapshot.workspace)
    lineage = Lineage(named.snapshot, objects, [named.path])
    md5 = lineage.nodes[named.path].entry.md5
    if not md5:
        raise InputError(f"{named.path}: {named.snapshot.label} has no such file of data")
    pinned = lineage.pinned
    inside = pinned.holds(named.path) and pinned.hash_below(named.path) == md5
    files = pinned.below(named.path) if inside else None
    return named.path, objects.restore(md5, out, named.path, force=force, files=files)
