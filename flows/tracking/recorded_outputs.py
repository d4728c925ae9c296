"""The outputs in `dvc.lock` that a run wrote itself, for runs of a plain `dvc repro`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.tracking.rows import read_from, stage_of
from flows.versioning.dvc.pipeline_file import FILE
from flows.versioning.objects import hash_on_disk
from flows.versioning.recorded_hashes import output_hashes
from flows.versioning.snapshot import METRICS
from lori_core.core.redaction import redact


def written_by(rows: Path, workspace: Path) -> dict[str, str]:
    """Return path → hash of the stage's outputs in `dvc.lock`; empty if the run wrote others.

    A run that failed or was killed wrote none. After one that ended, `dvc.lock` may record the
    outputs of another run: DVC did not record this one's, or an older state was checked out. So
    the files here must have the recorded hashes, and metrics the facts that the run reported.

    Args:
        rows: the run's rows file.
        workspace: the workspace of the rows file.
    """
    written, _ = read_from(rows, 0, limit=-1)
    ends = [row["type"] for row in written if row["type"] in ("end", "error")]
    if ends[-1:] != ["end"]:
        return {}
    stage = stage_of(rows, workspace)
    hashes = output_hashes(workspace, stage)
    root = (workspace / (stage.rpartition(":")[0] or FILE)).parent
    metrics = {path: md5 for path, md5 in hashes.items() if path.startswith(f"{METRICS}/")}
    # The metrics name the other outputs' content keys; adapters take long to read.
    if any(hash_on_disk(root / path) != md5 for path, md5 in (metrics or hashes).items()):
        return {}
    said: dict[str, Any] = {}
    for row in written:
        said |= (row.get("values") or {}) if row["type"] == "tags" else {}
    for path in metrics:
        for name, fact in _facts(root / path).items():
            if isinstance(fact, str) and said.get(f"lori.{name}", redact(fact)) != redact(fact):
                return {}
    return hashes


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
    except ValueError:  # metrics of another format
        return {}
    return facts if isinstance(facts, dict) else {}
