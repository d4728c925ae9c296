"""What was measured of an artifact: the stages that did, and their numbers where they are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flows.lineage.problem import Problem
from flows.versioning.dvc.lock_file import Entry, StageEntry
from flows.versioning.objects import md5_of_bytes
from flows.versioning.snapshot import LOCK, Snapshot
from lori_core.evaluation.rows import row_of

EVALUATE, EXCESS = "evaluate_", "excess"


def measuring(snapshot: Snapshot, name: str, md5: str) -> Iterator[StageEntry]:
    """Yield the stages that evaluated exactly these bytes of an artifact, or its interference."""
    for stage in snapshot.stages.values():
        dep = stage.deps.get(name)
        if dep is not None and dep.md5 == md5 and stage.outs and _measures(stage.name):
            yield stage


def evaluation(snapshot: Snapshot, name: str, md5: str) -> StageEntry | None:
    """Return the stage that evaluated exactly these bytes of an artifact."""
    found = measuring(snapshot, name, md5)
    return next((stage for stage in found if stage.name.startswith(EVALUATE)), None)


def _measures(stage: str) -> bool:
    return stage.startswith(EVALUATE) or stage.partition("@")[0] == EXCESS


def rows_of(stage: StageEntry | None) -> str | None:
    """Return the folder of verdicts that an evaluation left."""
    outs = stage.outs if stage else ()
    return next((path for path in outs if path.startswith("artifacts/")), None)


def metrics_of(stage: StageEntry) -> Entry | None:
    """Return the file of metrics that a stage wrote."""
    return next((entry for path, entry in stage.outs.items() if path.startswith("metrics/")), None)


def read_metrics(snapshot: Snapshot, stage: StageEntry) -> dict[str, Any] | None:
    """Return the metrics that a stage wrote, if they are still those; None otherwise."""
    entry = metrics_of(stage)
    content = snapshot.read(entry.path) if entry else None
    if entry is None or content is None or md5_of_bytes(content) != entry.md5:
        return None
    said = json.loads(content)
    return said if isinstance(said, dict) else None


def scores(snapshot: Snapshot, name: str, md5: str) -> tuple[dict[str, Any], Problem | None]:
    """Return score, interval and n by task of the evaluation that read exactly these bytes.

    Args:
        snapshot: the state.
        name: the artifact.
        md5: its hash.

    Returns:
        Nothing where it was not evaluated, or where the metrics are not those that `dvc.lock`
        records: then that is the second.
    """
    stage = evaluation(snapshot, name, md5)
    entry = metrics_of(stage) if stage else None
    if stage is None or entry is None or snapshot.read(entry.path) is None:
        return {}, None
    said = read_metrics(snapshot, stage)
    if said is None:
        text = (
            f"is not what {LOCK} records ({entry.md5}), so its scores are not told; {again(entry)}"
        )
        return {}, Problem(entry.path, text)
    row = row_of(name, said)
    kept = ("metric", "score", "low", "high", "n", "over_refusal", "incoherent")
    found = {task: {key: row.get(key) for key in kept} for task, row in said[row].items()}
    return found, None


def again(entry: Entry) -> str:
    """Say where a file that DVC does not cache is to be had from."""
    return f"git checkout -- {entry.path}, or lori run makes it again"
