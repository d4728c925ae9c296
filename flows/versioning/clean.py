"""`make clean` (`python -m flows.versioning.clean`): delete the outputs of stages, nothing else."""

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

#: Folders whose outputs are deleted; metrics and data stay.
FOLDERS = ("artifacts", "report", "experiments/report")
LOCKS = ("dvc.lock", "experiments/dvc.lock")


def clean(workspace: Path) -> list[str]:
    """Delete the outputs of all stages that are defined or recorded, and `.lori`.

    Returns:
        The files below `artifacts` that stay, because they are no stage's output.

    Raises:
        InputError: a pipeline runs in the workspace.
    """
    if pipeline_runs(workspace):
        raise InputError(f"{workspace.resolve()}: a pipeline runs here; wait for it, or stop it")
    outputs = {*_recorded(workspace), *_defined(workspace)}
    for name in sorted(outputs):
        path = workspace / name
        if _inside(name) and not path.is_symlink():
            for place in (path, *beside(path)):
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    shutil.rmtree(workspace / ".lori", ignore_errors=True)
    return list(_remaining(workspace / "artifacts", {Path(name).name for name in outputs}))


def _inside(name: str) -> bool:
    """Return whether a path lies in one of the folders that stages write to."""
    path = Path(os.path.normpath(name))
    return any(path.is_relative_to(folder) for folder in FOLDERS) and path != Path("artifacts")


def _recorded(workspace: Path) -> Iterator[str]:
    """Yield the outputs that the lock files record."""
    import yaml

    for name in LOCKS:
        path = workspace / name
        try:
            content = dvc_files.read(path)
            dvc_files.scan(content or b"", str(path))
            lock = yaml.safe_load(content) if content else {}
            stages = lock.get("stages", {}).values()
            yield from [str(out["path"]) for stage in stages for out in stage.get("outs", ())]
        except (InputError, ValueError, yaml.YAMLError, AttributeError, TypeError, KeyError):
            print(f"{path}: cannot be read; the outputs it lists are left", file=sys.stderr)


def _defined(workspace: Path) -> list[str]:
    """Return the outputs that `dvc.yaml` defines: those of a stopped stage are not recorded."""
    from dvc.exceptions import DvcException

    root = workspace.resolve()
    try:
        with opened(workspace) as repo:
            return [os.path.relpath(out.fs_path, root) for out in repo.index.outs]
    except (DvcException, InputError, OSError):  # no DVC workspace, or a damaged one
        return []


def _remaining(artifacts: Path, outputs: set[str]) -> Iterator[str]:
    """Remove empty folders; yield the remaining files and links."""
    for folder, folders, names in os.walk(artifacts, topdown=False):
        ignored = Path(folder, ".gitignore")
        if names == [ignored.name] and _lists_only(ignored, outputs):
            ignored.unlink()
            names = []
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (str(Path(folder, name)) for name in sorted([*names, *links]))
        with suppress(OSError):  # not empty
            Path(folder).rmdir()


def _lists_only(path: Path, outputs: set[str]) -> bool:
    """Return whether a `.gitignore` lists outputs only, so that DVC wrote it."""
    return {line.strip("/") for line in path.read_text(encoding="utf-8").split()} <= outputs


if __name__ == "__main__":
    try:
        for remaining in clean(Path()):
            print(f"{remaining}: left, it is no output of a stage")
    except LoriError as error:
        print(f"make clean: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
