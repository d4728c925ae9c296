"""Where DVC can work, and what is said where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.versioning import graph
from flows.versioning.workspace import check
from lori_core.core.errors import InputError


@pytest.fixture
def project(toy: Path) -> Path:
    """The toy workspace as most are: DVC inside a git repository."""
    (toy / ".dvc/config").write_text("")
    subprocess.run(["git", "init", "-q"], cwd=toy, check=True)
    return toy


def refusal(workspace: Path) -> str:
    before = sorted(workspace.iterdir())
    with pytest.raises(InputError) as caught:
        check(workspace)
    assert sorted(workspace.iterdir()) == before
    (line,) = str(caught.value).splitlines()
    return line


def test_a_repository_and_a_workspace_without_git_are_well(toy: Path) -> None:
    check(toy)
    (toy / ".dvc/config").write_text("")
    assert refusal(toy) == (
        f"{toy}: not a git repository, which DVC needs; run git init here (or, for DVC without "
        "git: dvc config core.no_scm true)"
    )
    subprocess.run(["git", "init", "-q"], cwd=toy, check=True)
    check(toy)


def _no_dvc(project: Path) -> None:
    shutil.rmtree(project / ".dvc")


def _empty_git(project: Path) -> None:
    shutil.rmtree(project / ".git")
    (project / ".git").mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no .dvc": (_no_dvc, "no DVC workspace (no .dvc here); work in a clone"),
    "empty .git": (_empty_git, "git fails: not a git repository"),
    "git's settings": (lambda p: (p / ".git/config").write_text("[["), "bad config line 1"),
    "git's index": (lambda p: (p / ".git/index").write_text("x"), "index file smaller"),
    "DVC's settings": (lambda p: (p / ".dvc/config").write_text("[core]\nx = 1\n"), "extra keys"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_named(what: str, project: Path) -> None:
    damage, reason = DAMAGES[what]
    damage(project)
    line = refusal(project)
    assert line.startswith(f"{project}: ")
    assert reason in line


def test_a_folder_of_a_larger_repository_works_unless_it_is_ignored(
    project: Path, tmp_path: Path
) -> None:
    shutil.rmtree(project / ".git")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    check(project)
    assert len(graph.plan(project).stages) == 4
    (tmp_path / ".gitignore").write_text("workspace\n")
    assert f"{project}: git ignores dvc.yaml here" in refusal(project)


def test_a_folder_of_another_workspace_is_not_taken_for_one(project: Path) -> None:
    inside = project / "inside"
    inside.mkdir()
    assert refusal(inside).startswith(f"{inside}: DVC's workspace is {project}, not this folder")


def test_dvcs_own_folder_must_be_writable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "file").touch()
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project / "file" / "cache"))
    line = refusal(project)
    assert str(project / "file" / "cache") in line
    assert "it writes to .dvc and to DVC_SITE_CACHE_DIR (/var/tmp/dvc unless set)" in line
