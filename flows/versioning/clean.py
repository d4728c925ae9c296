"""`make clean`: delete what runs made in a workspace, and nothing that somebody put beside it.

python -m flows.versioning.clean
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flows.lock import pipeline_runs
from flows.versioning.dvc import dvc_files
from flows.versioning.dvc.dvc_repo import opened
from lori_core.core.errors import InputError, LoriError
from lori_core.core.files.atomic import beside

#: Where stages leave files; metrics and data are kept.
FOLDERS = ("artifacts", "report", "experiments/report")
LOCKS = ("dvc.lock", "experiments/dvc.lock")


def clean(workspace: Path) -> list[str]:
    """Delete the outputs of the stages that there are or that ran, and `.lori`.

    Returns:
        What is left below `artifacts` because no stage made it.

    Raises:
        InputError: a pipeline runs in the workspace.
    """
    if pipeline_runs(workspace):
        raise InputError(f"{workspace.resolve()}: a pipeline runs here; wait for it, or stop it")
    made = {*_recorded(workspace), *_defined(workspace)}
    for name in sorted(made):
        path = workspace / name
        if _inside(name) and not path.is_symlink():
            for place in (path, *beside(path)):
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    shutil.rmtree(workspace / ".lori", ignore_errors=True)
    return list(_left(workspace / "artifacts", {Path(name).name for name in made}))


def _inside(name: str) -> bool:
    """Say whether a path is one that stages write to, and leads nowhere else."""
    path = Path(os.path.normpath(name))
    return any(path.is_relative_to(folder) for folder in FOLDERS) and path != Path("artifacts")


def _recorded(workspace: Path) -> Iterator[str]:
    """Yield the outputs of the stages that ran."""
    import yaml

    for name in LOCKS:
        path = workspace / name
        try:
            content = dvc_files.read(path)
            dvc_files.scan(content or b"", str(path))
            said = yaml.safe_load(content) if content else {}
            stages = said.get("stages", {}).values()
            yield from [str(out["path"]) for stage in stages for out in stage.get("outs", ())]
        except (InputError, ValueError, yaml.YAMLError, AttributeError, TypeError, KeyError):
            print(f"{path}: cannot be read; what it lists is left", file=sys.stderr)


def _defined(workspace: Path) -> list[str]:
    """Return the outputs of the stages there are: one that was stopped is recorded nowhere."""
    from dvc.exceptions import DvcException

    root = workspace.resolve()
    try:
        with opened(workspace) as repo:
            return [os.path.relpath(out.fs_path, root) for out in repo.index.outs]
    except (DvcException, InputError, OSError):  # no workspace, or none that can be read
        return []


def _left(artifacts: Path, made: set[str]) -> Iterator[str]:
    """Remove folders that are empty by now; yield the files and links that stay."""
    for folder, folders, names in os.walk(artifacts, topdown=False):
        ignored = Path(folder, ".gitignore")
        if names == [ignored.name] and _lists(ignored, made):
            ignored.unlink()
            names = []
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (str(Path(folder, name)) for name in sorted([*names, *links]))
        with suppress(OSError):  # not empty
            Path(folder).rmdir()


def _lists(path: Path, made: set[str]) -> bool:
    """Say whether DVC wrote this `.gitignore`: it lists outputs and nothing else."""
    return {line.strip("/") for line in path.read_text(encoding="utf-8").split()} <= made


if __name__ == "__main__":
    try:
        for left in clean(Path()):
            print(f"{left}: left, no stage made it")
    except LoriError as error:
        print(f"make clean: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
