"""Exchange artifacts between machines without a shared folder, by DVC's remote and run cache.

A node gets the small files of the workspace as one bundle, fetches the outputs that its stage
depends on, runs the stage and pushes the stage's outputs. The workspace that started the run then
lets DVC reproduce the stage from the run cache: the command does not run again, and `dvc.lock` is
the same as after a run on one machine.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.versioning.dvc.dvc_repo import opened
from lori_core.core.errors import InputError, LoriError
from lori_core.core.files.atomic import write_text

#: The largest bundle of code and settings; larger files belong into DVC.
BUNDLE_BYTES = 64 * 2**20
#: Never part of a bundle: local files, secrets, and files that can be made again.
LEFT_OUT = (
    ".git",
    ".venv",
    ".lori",
    ".dvc/cache",
    ".dvc/tmp",
    ".dvc/config.local",
    "mlruns",
    "prefect.toml",  # holds a password
)
#: Endings of databases, locks, compiled files and logs, which are no part of a bundle either.
LEFT_OUT_ENDINGS = (".db", ".db-shm", ".db-wal", ".db.lock", ".pyc", ".log")


@dataclass(frozen=True)
class Bundle:
    """A zip archive of a workspace's small files: code, settings, `dvc.lock`, metrics."""

    content: bytes

    def unpack(self, folder: Path) -> None:
        """Write the files into a folder; other files there are left alone."""
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            archive.extractall(folder)


def check_remote(workspace: Path) -> None:
    """Refuse to start without a usable default remote of DVC.

    Raises:
        InputError: there is no default remote, or it cannot be used; the message names it.
    """
    with _repository(workspace) as repo:
        name = repo.config["core"].get("remote")
        if name is None:
            raise InputError(
                "execution.exchange: remote needs a default DVC remote "
                "(dvc remote add -d store s3://…), or set it to shared"
            )
        from flows.doctor.services import listed

        finding = listed(repo, name)
        if not finding.ok:
            raise InputError(f"{finding.text} ({finding.todo})")


def bundle(workspace: Path) -> Bundle:
    """Return the bundle of a workspace.

    Raises:
        InputError: the files exceed `BUNDLE_BYTES`.
    """
    with _repository(workspace) as repo:
        outputs = {
            os.path.relpath(out.fs_path, workspace)
            for out in repo.index.outs
            if out.use_cache and out.is_in_repo
        }
    buffer, size = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _files(workspace, {*LEFT_OUT, *outputs}):
            size += (workspace / name).stat().st_size
            if size > BUNDLE_BYTES:
                raise InputError(
                    f"{workspace}: its files without DVC's outputs exceed {BUNDLE_BYTES >> 20} MiB "
                    f"(at {name}); put large files under DVC (dvc add)"
                )
            archive.write(workspace / name, name)
    return Bundle(buffer.getvalue())


def _files(workspace: Path, left_out: set[str]) -> Iterator[str]:
    for folder, folders, names in os.walk(workspace):
        here = Path(folder).relative_to(workspace)
        folders[:] = sorted(
            name
            for name in folders
            if (here / name).as_posix() not in left_out
            and name != "__pycache__"
            and not (name.startswith(".") and name.endswith("_cache"))
        )
        for name in sorted(names):
            path = (here / name).as_posix()
            if path not in left_out and not name.endswith(LEFT_OUT_ENDINGS):
                yield path


def share(workspace: Path, stages: Iterable[str]) -> None:
    """Push the data and these stages' outputs, which the nodes will fetch."""
    targets = [*_pins(workspace), *stages]
    with _repository(workspace) as repo:
        if targets:
            repo.push(targets=targets)


def fetch(workspace: Path, stages: Iterable[str]) -> None:
    """Bring the data and these stages' outputs into a node's workspace."""
    targets = [*_pins(workspace), *stages]
    with _repository(workspace) as repo:
        if targets:
            repo.pull(targets=targets, force=True, allow_missing=True)


def publish(workspace: Path, stage: str) -> Mapping[str, str]:
    """Push a stage's outputs; return its entries of the run cache: file → text.

    Raises:
        LoriError: DVC has no record of the stage's run.
    """
    with _repository(workspace) as repo:
        node = _node(repo, stage)
        folder = Path(repo.stage_cache.cache_dir)
        before = repo.stage_cache._load(node)
        if before is None:
            raise LoriError(f"{stage}: ran, but DVC's run cache has no record of it")
        for objects in (
            repo.stage_cache._create_stage(before, wdir=node.wdir).get_used_objs().values()
        ):
            repo.cloud.push(objects)
        repo.stage_cache.push(None)
        key = _key(node)
        return {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for path in (folder / key[:2] / key).iterdir()
        }


def adopt(workspace: Path, stage: str, runs: Mapping[str, str]) -> None:
    """Take over the outputs that a node pushed, and write `dvc.lock` as if the stage ran here.

    Raises:
        LoriError: the stage's inputs here differ from those on the node, or the remote lacks
            outputs.
    """
    with _repository(workspace) as repo:
        for name, text in runs.items():
            write_text(Path(repo.stage_cache.cache_dir) / name, text)
        node = _node(repo, stage)
        node.save_deps()
        cached = repo.stage_cache._load(node)
        if cached is None:
            raise LoriError(
                f"{stage}: its inputs on the node differ from those of this workspace "
                "(was a file changed here during the run?); run it again"
            )
        stage_of_node = repo.stage_cache._create_stage(cached, wdir=node.wdir)
        for objects in stage_of_node.get_used_objs().values():
            repo.cloud.pull(objects)
        repo.reproduce(stage, single_item=True)


def _pins(workspace: Path) -> list[str]:
    return sorted(path.name for path in workspace.glob("*.dvc") if path.is_file())


def _node(repo: Any, stage: str) -> Any:
    return next(node for node in repo.index.stages if node.addressing == stage)


def _key(node: Any) -> str:
    from dvc.stage.cache import _get_stage_hash

    return str(_get_stage_hash(node))


@contextmanager
def _repository(workspace: Path) -> Iterator[Any]:
    from dvc.exceptions import DvcException

    try:
        with opened(workspace) as repo:
            yield repo
    except DvcException as error:
        raise LoriError(f"dvc: {' '.join(str(error).split())}") from error
