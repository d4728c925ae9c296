"""Set up a folder for `lori run`: the pipeline, git, DVC, and a page that explains it."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path

from flows.environment import quiet_environment
from flows.versioning.dvc import definition
from flows.versioning.dvc.pipeline_file import FILE
from lori_core.core.errors import InputError, LoriError
from lori_core.core.files.atomic import write_text

#: What a run makes besides `data.dvc`, `dvc.lock`, `metrics/` and `code/`, which git keeps.
_IGNORED = (
    "/data", "/artifacts", "/report", "/compare", "/evaluation", ".lori/", "mlruns/", "mlflow.db*",
    "mlartifacts/", "__pycache__/", ".venv/",
)  # fmt: skip
_DVC_IGNORED = ("__pycache__", "*.pyc", ".venv", ".lori", "mlruns", ".*.new", ".*.old")
#: The files that must not be there yet.
NEW = ("params.yaml", FILE)


def check(folder: Path) -> None:
    """Refuse a folder that already has a pipeline, or a machine without git.

    Raises:
        InputError: names the file, or git.
    """
    for name in (*NEW, "dvc.lock", "data.dvc"):
        if (folder / name).exists() or (folder / name).is_symlink():
            raise InputError(
                f"{folder / name}: this folder has a pipeline already; run lori init in another "
                "folder, or lori plan here"
            )
    try:
        _git(folder, "--version")
    except OSError as error:
        raise InputError(f"git: {error.strerror}; install git, which DVC needs") from None


def make(folder: Path, params: str, readme: str) -> list[str]:
    """Write the files of a new workspace, and set up git and DVC if they are not there.

    Files that exist are not changed, except that missing lines are added to `.gitignore` and
    `.dvcignore`.

    Args:
        folder: the folder; `check` accepts it.
        params: the text of `params.yaml`.
        readme: the text of `README.md`.

    Returns:
        One line for each thing that was made.

    Raises:
        LoriError: git or DVC fails.
    """
    texts: Mapping[str, str] = {
        "params.yaml": params, FILE: definition.for_workspace(), "README.md": readme,
    }  # fmt: skip
    lines = [] if _in_git(folder) else [_init_git(folder)]
    for name, text in texts.items():
        if not (folder / name).exists():
            write_text(folder / name, text)
            lines.append(f"{name}: written")
    _add_lines(folder / ".gitignore", _IGNORED)
    if not (folder / ".dvc").is_dir():
        lines.append(_init_dvc(folder))
    _add_lines(folder / ".dvcignore", _DVC_IGNORED)
    added = _git(folder, "add", "--", *texts, ".gitignore", ".dvcignore", ".dvc")
    if added.returncode:
        raise LoriError(f"git add: {added.stderr.strip()}")
    return lines


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
    )


def _in_git(folder: Path) -> bool:
    return _git(folder, "rev-parse", "--is-inside-work-tree").stdout.strip() == "true"


def _init_git(folder: Path) -> str:
    done = _git(folder, "init", "--quiet")
    if done.returncode:
        raise LoriError(f"git init: {done.stderr.strip()}")
    return ".git: a new repository"


def _init_dvc(folder: Path) -> str:
    quiet_environment()
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    top = Path(_git(folder, "rev-parse", "--show-toplevel").stdout.strip())
    try:
        logging.disable(logging.INFO)  # DVC's messages to new users
        try:
            repo = Repo.init(str(folder), subdir=top.resolve() != folder.resolve())
        finally:
            logging.disable(logging.NOTSET)
        with repo, repo.config.edit("repo") as settings:
            settings["core"] |= {"analytics": False, "check_update": False}
    except DvcException as error:
        raise LoriError(f"dvc init: {' '.join(str(error).split())}") from error
    return ".dvc: a new DVC workspace, with its cache in .dvc/cache"


def _add_lines(path: Path, lines: tuple[str, ...]) -> None:
    """Add the lines that a file does not have."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    missing = [line for line in lines if line not in before.splitlines()]
    if missing:
        gap = "" if not before or before.endswith("\n") else "\n"
        write_text(path, before + gap + "".join(f"{line}\n" for line in missing))
