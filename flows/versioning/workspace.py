"""Whether DVC can work in a folder, found out before anything is written there."""

from __future__ import annotations

from pathlib import Path

from flows.versioning import git
from flows.versioning.dvc.damage import check_files
from flows.versioning.dvc.dvc_repo import opened
from flows.versioning.graph import PIPELINE
from lori_core.core.errors import InputError

CLONE = "work in a clone of the project, or run dvc init --subdir here"


def check(workspace: Path) -> None:
    """Refuse a folder in which DVC would fail, or would find no stages.

    Raises:
        GitError: the git repository that DVC needs is damaged.
        InputError: there is no DVC workspace or no git repository, or git ignores it.
    """
    workspace = workspace.absolute()
    check_files(workspace, pin=False, definition=False)
    root, ignored = _asked(workspace)
    if root.resolve() != workspace.resolve():
        raise InputError(f"{workspace}: DVC's workspace is {root}, not this folder; {CLONE}")
    if ignored:
        raise InputError(
            f"{workspace}: git ignores {PIPELINE} here, and DVC ignores what git does; take the "
            "folder out of the .gitignore above it, or run git init here"
        )


def _asked(workspace: Path) -> tuple[Path, bool]:
    """Return where DVC's workspace begins, and whether git ignores its stages."""
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
        git.head(workspace)  # a damaged repository is none for DVC
        raise InputError(
            f"{workspace}: not a git repository, which DVC needs; run git init here (or, for DVC "
            "without git: dvc config core.no_scm true)"
        ) from None
    except OSError as error:
        raise InputError(
            f"{workspace}: DVC cannot work: {error}; it writes to .dvc and to DVC_SITE_CACHE_DIR "
            "(/var/tmp/dvc unless set)"
        ) from None
    except Exception as error:  # of DVC's settings, or of a library by which it reads git
        if not isinstance(error, DvcException):
            git.head(workspace)
        words = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{workspace}: DVC cannot work: {words}") from None
