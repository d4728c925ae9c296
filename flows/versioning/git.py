"""Calls to git, which tell apart: no repository, no commit yet, and git fails."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core.core.errors import InputError

#: Tags of an MLflow run: MLflow's own tag for the commit, and ours.
COMMIT_TAG = "mlflow.source.git.commit"
CHANGED_TAG = "git.changed"
NO_COMMIT_TAG = "git.no_commit"
FAILED_TAG = "git.failed"


class GitError(InputError):
    """Git is not installed, refuses the folder, or its repository is damaged."""


@dataclass(frozen=True)
class Head:
    """The commit checked out (None before the first), and whether tracked files differ from it."""

    commit: str | None
    changed: bool


def head(folder: Path) -> Head | None:
    """Return what is checked out in a folder's repository; None outside a git repository.

    Raises:
        GitError: git fails.
    """
    if not _in_work_tree(folder):
        return None
    commit = _ask(folder, "log", "-1", "--no-show-signature", "--format=%H")
    unborn = b"does not have any commits yet" in commit.stderr
    status = _ask(folder, "status", "--porcelain", "--untracked-files=no")
    for answer in (commit, status):
        if answer.returncode != 0 and not (unborn and answer is commit):
            raise _failure(folder, answer)
    return Head(None if unborn else commit.stdout.decode().strip(), bool(status.stdout.strip()))


def commit(folder: Path, revision: str) -> str | None:
    """Return the full hash of a commit; None if there is no such commit or no repository.

    Raises:
        GitError: git fails.
    """
    if revision.startswith("-") or not _in_work_tree(folder):
        return None
    answer = _ask(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if answer.returncode != 0:
        head(folder)  # raises if the repository is damaged
        return None
    return answer.stdout.decode().strip()


def is_shallow(folder: Path) -> bool:
    """Return whether older commits may be missing from this clone."""
    return _ask(folder, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"


def show(folder: Path, commit: str, name: str) -> bytes | None:
    """Return a file's bytes in a commit; None if the commit does not have the file.

    Args:
        folder: a folder of the repository.
        commit: the commit.
        name: the file's path, relative to `folder`.

    Raises:
        GitError: git fails.
    """
    answer = _ask(folder, "show", f"{commit}:./{name}")
    if answer.returncode == 0:
        return answer.stdout
    if re.search(rb"does not exist in|exists on disk, but not in", answer.stderr):
        return None
    raise _failure(folder, answer)


def index_lock(folder: Path) -> Path | None:
    """Return the path of git's index lock; None outside a repository, or if git fails."""
    try:
        answer = _ask(folder, "rev-parse", "--git-path", "index.lock")
    except GitError:
        return None
    return folder / os.fsdecode(answer.stdout.rstrip(b"\n")) if answer.returncode == 0 else None


def tags(folder: Path, warn: Callable[[str], None]) -> dict[str, str]:
    """Return the tags by which a run records its commit; if git fails, warn and record why."""
    try:
        current = head(folder)
    except GitError as error:
        warn(f"the commit is not recorded: {error}")
        return {FAILED_TAG: str(error)}
    if current is None or current.commit is None:
        return {NO_COMMIT_TAG: "not a git repository" if current is None else "no commit yet"}
    return {COMMIT_TAG: current.commit, CHANGED_TAG: str(current.changed).lower()}


def of_tags(recorded: Mapping[str, str]) -> dict[str, Any]:
    """Return what `tags` recorded; empty if it recorded nothing.

    Returns:
        `commit` and `changed`; or `no_commit`, why there is no commit; or `git`, why git failed.
    """
    if COMMIT_TAG in recorded:
        return {
            "commit": recorded[COMMIT_TAG],
            "changed": recorded.get(CHANGED_TAG) == "true",
        }
    names = {"no_commit": NO_COMMIT_TAG, "git": FAILED_TAG}
    return {name: recorded[tag] for name, tag in names.items() if tag in recorded}


def _in_work_tree(folder: Path) -> bool:
    marked = _marked(folder)
    try:
        answer = _ask(folder, "rev-parse", "--is-inside-work-tree")
    except GitError:
        if marked is None:
            return False
        raise
    if answer.returncode == 0:
        if answer.stdout.strip() == b"true":
            return True
        raise GitError(
            f"{folder}: git's repository here has no work tree (core.bare); work in a clone of it"
        )
    if marked is None and b"not a git repository" in answer.stderr:
        return False
    raise _failure(marked or folder, answer)


def _marked(folder: Path) -> Path | None:
    """Return the nearest folder with a `.git`, even a damaged one; None if there is none."""
    here = folder.resolve()
    return next((path for path in (here, *here.parents) if os.path.lexists(path / ".git")), None)


def _ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, with messages in English and without optional locks."""
    try:
        return subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise GitError(
            f"{folder}: git cannot be run ({error.strerror}); install git, or put it on PATH"
        ) from None


def _failure(folder: Path, answer: subprocess.CompletedProcess[bytes]) -> GitError:
    """Return git's error as one line with what to do."""
    lines = answer.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
    fatal = next((line for line in lines if line.startswith("fatal: ")), lines[0])
    reason = fatal.removeprefix("fatal: ")
    allowed = next((line.strip() for line in lines if "safe.directory" in line), None)
    if allowed is not None:
        return GitError(f"{folder}: git refuses: {reason}; to trust it: {allowed}")
    return GitError(f"{folder}: git fails: {reason}; mend the repository, or clone it anew")
