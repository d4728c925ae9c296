"""Check whether DVC can work in a folder, before anything is written there."""

from __future__ import annotations

from pathlib import Path

from flows.versioning import git
from flows.versioning.dvc.damage import check_files
from flows.versioning.dvc.dvc_repo import opened
from flows.versioning.dvc.pipeline_file import FILE as PIPELINE
from lori_core.core.errors import InputError

CLONE = "work in a clone of the project, or run dvc init --subdir here"


def check(workspace: Path) -> None:
    """Refuse a folder in which DVC would fail or would see no stages.

    Raises:
        GitError: the git repository that DVC needs is damaged.
        InputError: the folder is no DVC workspace or no git repository, or git ignores `dvc.yaml`.
    """
    workspace = workspace.absolute()
    check_files(workspace, pin=False, definition=False)
    root, ignored = _root_and_ignored(workspace)
    if root.resolve() != workspace.resolve():
        raise InputError(f"{workspace}: DVC's workspace is {root}, not this folder; {CLONE}")
    if ignored:
        raise InputError(
            f"{workspace}: git ignores {PIPELINE} here, and DVC ignores what git ignores; remove "
            "the folder from the .gitignore above it, or run git init here"
        )


def _root_and_ignored(workspace: Path) -> tuple[Path, bool]:
    """Return the root of DVC's workspace, and whether git ignores `dvc.yaml`."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.scm import SCMError

    try:
        with opened(workspace) as repo:
            root = Path(repo.root_dir)
            repo.scm.is_tracked(str(root / PIPELINE))  # reads git's index, as a run will
            return root, bool(repo.scm.is_ignored(str(workspace / PIPELINE)))
    except NotDvcRepoError:
        raise InputError(f"{workspace}: no DVC workspace (no .dvc here); {CLONE}") from None
    except SCMError:
        git.head(workspace)  # raises if the repository is damaged, which DVC does not tell apart
        raise InputError(
            f"{workspace}: not a git repository, which DVC needs; run git init here (or, for DVC "
            "without git: dvc config core.no_scm true)"
        ) from None
    except OSError as error:
        raise InputError(
            f"{workspace}: DVC cannot work: {error}; it writes to .dvc and to DVC_SITE_CACHE_DIR "
            "(/var/tmp/dvc unless set)"
        ) from None
    except Exception as error:  # of DVC's settings, or of the library by which it reads git
        if not isinstance(error, DvcException):
            git.head(workspace)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{workspace}: DVC cannot work: {reason}") from None
