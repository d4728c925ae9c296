"""`lori why`, `lori diff`, `lori restore`: from a name to a state, and what is said of it."""

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
    """Return what a word names.

    A path, a stage, or either at a commit (`PATH@REVISION`); a commit, a kept state
    (`.lori/snapshots/…`) or another workspace, for the whole of it; an MLflow run; a registered
    model (`models:/NAME/VERSION`, `models:/NAME@ALIAS`, or its name).

    Raises:
        InputError: nothing has that name; the nearest names are given. Where git fails, what it
            says: the name may have been a commit's.
    """
    if word.startswith("models:/") or _is_run(word):
        from flows.lineage.mlflow_names import of_model, of_run

        return of_model(word, workspace) if word.startswith("models:/") else of_run(word, workspace)
    here = _here(workspace)
    try:
        return _at_commit(word, workspace, here) or _by_name(word, workspace, here)
    except GitError as failure:
        # A name that needs no git has its meaning whatever is wrong with git.
        path, _, _ = word.rpartition("@")
        if path and _on_disk(path, workspace, here):
            raise
        try:
            return _as_it_stands(word, workspace, here)
        except InputError as error:
            raise InputError(f"{error}; if a commit was meant: {failure}") from None


def _at_commit(word: str, workspace: Path, here: Snapshot | None) -> Named | None:
    """Return what `PATH@REVISION` names; None where the word is not of that form."""
    path, _, revision = word.rpartition("@")
    if not path or not revision or Path(word).exists():
        return None
    state = snapshot.of_commit(workspace, revision)
    if state is not None:
        return Named(state, find(state, _inside(path, workspace)))
    if _on_disk(path, workspace, here) and not _on_disk(word, workspace, here):
        more = "; this clone is shallow: git fetch --unshallow" if git.is_shallow(workspace) else ""
        raise InputError(f"{word}: git knows no commit {revision!r} here{more}")
    return None


def _by_name(word: str, workspace: Path, here: Snapshot | None) -> Named:
    found = _on_disk(word, workspace, here)
    if found is not None:
        return found
    state = _whole(word, workspace)
    if state is not None:
        return Named(state, None)
    return _as_it_stands(word, workspace, here)


def _on_disk(word: str, workspace: Path, here: Snapshot | None) -> Named | None:
    try:
        return _as_it_stands(word, workspace, here)
    except InputError:
        return None


def _as_it_stands(word: str, workspace: Path, here: Snapshot | None) -> Named:
    """Return what a word names in another workspace or in this one, no commit of it."""
    other = _other_workspace(word, workspace)
    if other is not None:
        return other
    here = here or snapshot.of_workspace(workspace)  # says that nothing has run
    return Named(here, find(here, _inside(word, workspace)))


def _is_run(word: str) -> bool:
    return len(word) == 32 and all(letter in "0123456789abcdef" for letter in word)


def _here(workspace: Path) -> Snapshot | None:
    return snapshot.of_workspace(workspace) if (workspace / snapshot.LOCK).is_file() else None


def _inside(word: str, workspace: Path) -> str:
    """Return a path as the workspace's files call it."""
    path = Path(word)
    if path.is_absolute() and path.is_relative_to(workspace.resolve()):
        path = path.relative_to(workspace.resolve())
    return path.as_posix().rstrip("/")


def _other_workspace(word: str, workspace: Path) -> Named | None:
    """Return the state of another folder's workspace, and the artifact there that a path names."""
    path = Path(word)
    if not path.exists() or path.resolve().is_relative_to(workspace.resolve()):
        return None
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / snapshot.LOCK).is_file():
            state = snapshot.of_workspace(folder)
            inside = path.resolve().relative_to(folder).as_posix()
            return Named(state, None if inside == "." else find(state, inside))
    return None


def _whole(word: str, workspace: Path) -> Snapshot | None:
    if word in (".", ""):
        return _here(workspace)
    folder = workspace / word
    if (folder / snapshot.LOCK).is_file():
        return snapshot.of_folder(word, folder, workspace)
    return snapshot.of_commit(workspace, word)


def lineage_of(named: Named, *, remote: bool = True) -> Lineage:
    """Return the lineage of what was named, with every node marked, its makers and scores put in.

    Scores are only those that `dvc.lock` still stands for; where they are not, that is a doubt.
    """
    state = named.state
    objects = Objects(state.workspace, remote=remote)
    targets = [named.path] if named.path else [primary(s) for s in state.stages.values() if s.outs]
    lineage = Lineage(state, objects, targets)
    lineage.mark()
    made = provenance.runs(state.workspace)
    for node in lineage.nodes.values():
        run = made.get(f"{node.name}={node.entry.md5}")
        if run:
            node.facts["made"] = run
        if node.stage is not None:
            found, doubt = measured.scores(state, node.name, node.entry.md5)
            if found:
                node.facts["scores"] = found
            if doubt:
                lineage.doubts.append(doubt)
    return lineage


def restore(word: str, out: Path, workspace: Path, *, force: bool = False) -> tuple[str, int]:
    """Write the recorded bytes of an artifact, a mask or data to `out`; return name and size.

    Raises:
        InputError: nothing has that name, or `out` exists and `force` is not given.
        LoriError: the bytes are gone.
    """
    named = resolve(word, workspace)
    if named.path is None:
        raise InputError(f"{word}: names a whole state; name one artifact, as in PATH@{word}")
    objects = Objects(named.state.workspace)
    lineage = Lineage(named.state, objects, [named.path])
    md5 = lineage.nodes[named.path].entry.md5
    if not md5:
        raise InputError(f"{named.path}: {named.state.label} has no such file of data")
    return named.path, objects.restore(md5, out, named.path, force=force)
