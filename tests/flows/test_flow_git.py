"""What git says of a folder, and that its failures are not taken for "no commit"."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.versioning import git
from flows.versioning.git import GitError, Head

Git = Callable[..., str]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Run git below the test's folder, with nobody's settings."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")

    def run(folder: Path, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    return run


@pytest.fixture
def clone(tmp_path: Path, call: Git) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    call(folder, "init", "-q", "-b", "main")
    call(folder, "add", ".")
    call(folder, "commit", "-qm", "first")
    return folder


def said(folder: Path) -> str:
    """Return the one line by which git's failure is told."""
    with pytest.raises(GitError) as caught:
        git.head(folder)
    assert caught.value.exit_code == 2
    (line,) = str(caught.value).splitlines()
    return line


def test_a_clean_and_a_changed_tree(clone: Path, call: Git) -> None:
    commit = call(clone, "rev-parse", "HEAD")
    assert git.head(clone) == Head(commit, changed=False)
    (clone / "untracked").write_text("")
    assert git.head(clone) == Head(commit, changed=False)
    (clone / "dvc.lock").write_text("schema: '2.1'\n")
    assert git.head(clone) == Head(commit, changed=True)


def test_no_repository_and_no_commit_yet_are_said_apart(tmp_path: Path, call: Git) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    warnings: list[str] = []
    assert git.head(folder) is None
    assert git.commit(folder, "HEAD") is None
    assert git.tags(folder, warnings.append) == {git.NO_COMMIT_TAG: "not a git repository"}
    call(folder, "init", "-q")
    assert git.head(folder) == Head(None, changed=False)
    assert git.commit(folder, "HEAD") is None
    assert git.tags(folder, warnings.append) == {git.NO_COMMIT_TAG: "no commit yet"}
    assert warnings == []


def test_a_checkout_of_another_user_is_refused_with_the_command(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    line = said(clone)
    assert line == (
        f"{clone}: git refuses: detected dubious ownership in repository at '{clone}'; "
        f"to trust it: git config --global --add safe.directory {clone}"
    )
    with pytest.raises(GitError, match="dubious ownership"):
        git.commit(clone, "HEAD")
    warnings: list[str] = []
    recorded = git.tags(clone, warnings.append)
    assert recorded == {git.FAILED_TAG: line}
    assert warnings == [f"the commit is not recorded: {line}"]
    assert git.of_tags(recorded) == {"git": line}


def test_a_machine_without_git(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(clone))
    assert said(clone).startswith(f"{clone}: git cannot be run (No such file or directory)")
    assert git.head(clone.parent) is None
    assert git.index_lock(clone) is None


def _empty(folder: Path) -> None:
    shutil.rmtree(folder / ".git")
    (folder / ".git").mkdir()


def _no_objects(folder: Path) -> None:
    shutil.rmtree(folder / ".git/objects")
    (folder / ".git/objects").mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (_empty, "not a git repository"),
    "head gone": (lambda folder: (folder / ".git/HEAD").unlink(), "not a git repository"),
    "branch": (
        lambda folder: (folder / ".git/refs/heads/main").write_text("x"),
        "your current branch appears to be broken",
    ),
    "objects": (_no_objects, "bad object HEAD"),
    "index": (lambda folder: (folder / ".git/index").write_text("x"), "index file smaller"),
    "settings": (lambda folder: (folder / ".git/config").write_text("[["), "bad config line 1"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_repository_is_not_taken_for_none(what: str, clone: Path) -> None:
    damage, reason = DAMAGES[what]
    damage(clone)
    line = said(clone)
    assert line.startswith(f"{clone}: git fails: ")
    assert reason in line
    with pytest.raises(GitError):
        git.commit(clone, "HEAD~3")


def test_a_worktree_works_until_its_repository_is_gone(
    clone: Path, tmp_path: Path, call: Git
) -> None:
    call(clone, "worktree", "add", "-q", "../tree")
    tree = tmp_path / "tree"
    assert git.head(tree) == git.head(clone)
    lock = git.index_lock(tree)
    assert lock == clone / ".git/worktrees/tree/index.lock"
    shutil.rmtree(clone)
    assert said(tree).startswith(f"{tree}: git fails: not a git repository: ")


def test_a_detached_head_has_a_commit(clone: Path, call: Git) -> None:
    call(clone, "checkout", "-q", "--detach")
    assert git.head(clone) == Head(call(clone, "rev-parse", "HEAD"), changed=False)


def test_a_shallow_clone_knows_its_own_commit_alone(clone: Path, tmp_path: Path, call: Git) -> None:
    call(clone, "commit", "-q", "--allow-empty", "-m", "second")
    call(tmp_path, "clone", "-q", "--depth", "1", f"file://{clone}", "shallow")
    shallow = tmp_path / "shallow"
    assert git.head(shallow) == git.head(clone)
    assert git.commit(shallow, "HEAD~1") is None
    assert (git.is_shallow(clone), git.is_shallow(shallow)) == (False, True)


def test_a_repository_without_a_work_tree_is_said(clone: Path, call: Git) -> None:
    call(clone, "config", "core.bare", "true")
    assert "has no work tree (core.bare)" in said(clone)


def test_a_folder_of_a_larger_repository(clone: Path, call: Git) -> None:
    inside = clone / "project"
    inside.mkdir()
    (inside / "dvc.lock").write_text("inside\n")
    call(clone, "add", ".")
    call(clone, "commit", "-qm", "second")
    second = call(clone, "rev-parse", "HEAD")
    assert git.head(inside) == Head(second, changed=False)
    assert git.commit(inside, "HEAD") == second
    assert git.show(inside, second, "dvc.lock") == b"inside\n"
    assert git.show(inside, second, "data.dvc") is None
    assert git.show(inside, f"{second}~1", "dvc.lock") is None
    assert git.index_lock(inside) == inside / "../.git/index.lock"


def test_a_file_whose_bytes_are_gone_is_not_taken_for_absent(clone: Path, call: Git) -> None:
    blob = call(clone, "rev-parse", "HEAD:dvc.lock")
    (clone / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GitError, match="bad object"):
        git.show(clone, call(clone, "rev-parse", "HEAD"), "dvc.lock")


def test_names_that_look_like_options_are_no_commits(clone: Path) -> None:
    assert git.commit(clone, "--all") is None
    assert git.commit(clone, "no such thing @{") is None


def test_what_is_recorded_is_read_back(clone: Path, call: Git) -> None:
    recorded = git.tags(clone, pytest.fail)
    assert git.of_tags(recorded) == {"commit": call(clone, "rev-parse", "HEAD"), "changed": False}
    assert git.of_tags({git.NO_COMMIT_TAG: "no commit yet"}) == {"no_commit": "no commit yet"}
    assert git.of_tags({}) == {}
