"""The hashes of stages' outputs that `dvc.lock` records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from flows.versioning.dvc.lock_file import StageEntry, read_lock
from flows.versioning.dvc.lock_io import only_stage
from flows.versioning.dvc.pipeline_file import FILE
from lori_core.core.errors import InputError


def output_hashes(workspace: Path, stage: str) -> dict[str, str]:
    """Return path → content hash of a stage's outputs from `dvc.lock`; empty if it never ran."""
    file, _, name = stage.rpartition(":")
    stages = _lock((workspace / (file or FILE)).with_suffix(".lock"), only=name)
    return {path: out.md5 for path, out in stages[name].outs.items()} if name in stages else {}


def all_output_hashes(workspace: Path, pipeline: str = FILE) -> dict[str, dict[str, str]]:
    """Return path → content hash of every stage's outputs, by the stage's name in its file.

    Raises:
        InputError: the lock file is damaged.
    """
    stages = _lock((workspace / pipeline).with_suffix(".lock"))
    return {
        name: {path: out.md5 for path, out in stage.outs.items()} for name, stage in stages.items()
    }


def hashes_text(hashes: Mapping[str, str]) -> str:
    """Return output hashes as one searchable line: `path=hash path=hash`, sorted by path."""
    return " ".join(f"{path}={value}" for path, value in sorted(hashes.items()))


def _lock(path: Path, only: str | None = None, attempts: int = 5) -> Mapping[str, StageEntry]:
    # DVC rewrites the file in place when another stage ends: a partly written file is read again.
    for attempt in range(attempts):
        try:
            content = path.read_bytes()
            return read_lock(only_stage(content, only) if only else content, str(path))
        except FileNotFoundError:
            return {}
        except InputError:
            if attempt == attempts - 1:
                raise
            time.sleep(0.1)
    return {}
