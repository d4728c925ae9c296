"""The evaluations of an artifact: the stages that measured it, and their verified numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flows.lineage.problem import Problem
from flows.versioning.dvc import dvc_files
from flows.versioning.dvc.lock_file import Entry, StageEntry
from flows.versioning.objects import md5_of_bytes
from flows.versioning.snapshot import LOCK, Snapshot
from lori_core.evaluation.rows import row_of

EVALUATE, EXCESS = "evaluate_", "excess"


def measuring(snapshot: Snapshot, name: str, md5: str) -> Iterator[StageEntry]:
    """Yield the stages that evaluated these exact bytes of an artifact, or its interference."""
    for stage in snapshot.stages.values():
        dep = stage.deps.get(name)
        if dep is not None and dep.md5 == md5 and stage.outs and _measures(stage.name):
            yield stage


def evaluation(snapshot: Snapshot, name: str, md5: str) -> StageEntry | None:
    """Return the stage that evaluated these exact bytes of an artifact; None if none did."""
    stages = measuring(snapshot, name, md5)
    return next((stage for stage in stages if stage.name.startswith(EVALUATE)), None)


def _measures(stage: str) -> bool:
    return stage.startswith(EVALUATE) or stage.partition("@")[0] == EXCESS


def rows_of(stage: StageEntry | None) -> str | None:
    """Return the folder of an evaluation's verdicts; None if it has none."""
    outs = stage.outs if stage else ()
    return next((path for path in outs if path.startswith("artifacts/")), None)


def metrics_of(stage: StageEntry) -> Entry | None:
    """Return the file of metrics that a stage wrote; None if it wrote none."""
    return next((entry for path, entry in stage.outs.items() if path.startswith("metrics/")), None)


def read_metrics(snapshot: Snapshot, stage: StageEntry) -> dict[str, Any] | None:
    """Return the metrics that a stage wrote; None if the file is missing or was changed.

    A snapshot may lack the file while the workspace still has one with the recorded hash.
    """
    entry = metrics_of(stage)
    if entry is None:
        return None
    for read in (snapshot.read, lambda name: dvc_files.read(snapshot.workspace / name)):
        content = read(entry.path)
        if content is not None and md5_of_bytes(content) == entry.md5:
            metrics = json.loads(content)
            return metrics if isinstance(metrics, dict) else None
    return None


def scores(snapshot: Snapshot, name: str, md5: str) -> tuple[dict[str, Any], Problem | None]:
    """Return score, interval and n by task of the evaluation that read these exact bytes.

    Args:
        snapshot: the snapshot.
        name: the artifact.
        md5: its hash.

    Returns:
        The scores, empty if it was not evaluated or its file of metrics is missing or was changed;
        and the problem if it was changed.
    """
    stage = evaluation(snapshot, name, md5)
    entry = metrics_of(stage) if stage else None
    if stage is None or entry is None:
        return {}, None
    metrics = read_metrics(snapshot, stage)
    if metrics is None and snapshot.read(entry.path) is None:
        return {}, None
    if metrics is None:
        text = (
            f"is not what {LOCK} records ({entry.md5}), so its scores are not shown; "
            f"{git_restorable(entry)}"
        )
        return {}, Problem(entry.path, text)
    row = row_of(name, metrics)
    keys = ("metric", "score", "low", "high", "n", "over_refusal", "incoherent")
    return {task: {key: s.get(key) for key in keys} for task, s in metrics[row].items()}, None


def git_restorable(entry: Entry) -> str:
    """Return the advice how to get back a file that DVC does not cache."""
    return f"git checkout -- {entry.path}, or lori run makes it again"
