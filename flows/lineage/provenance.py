"""The run that made an artifact: user, host, time and commit, from the stages' rows files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flows.tracking.rows import Row, Shipment, parse, stage_of
from flows.tracking.sending import HASHES_TAG
from flows.versioning import git
from lori_core.core.tracking import ROWS_FOLDER

#: How much of a rows file's beginning and end is read, for its first and last rows.
HEAD_BYTES = 4096
TAIL_BYTES = 16384


def runs(workspace: Path) -> dict[str, dict[str, Any]]:
    """Return the newest run that made each output, by `path=hash`.

    Returns:
        For each output, as far as known: `stage`, `time`, `host`, `user`, `python`, packages,
        `commit` and `changed` (whether tracked files differed from it), `seconds`, `run` (MLflow's
        id); without a commit `no_commit`, the reason, or `git`, git's error.
    """
    made_by: dict[str, dict[str, Any]] = {}
    for rows in sorted((workspace / ROWS_FOLDER).rglob("*.jsonl"), key=lambda p: p.name):
        first, last = _ends(rows)
        outs = _outs(last)
        if first is None or not outs:
            continue
        run = _run(rows, first, last, stage_of(rows, workspace))
        made_by |= dict.fromkeys(outs.split(), run)
    return made_by


def _ends(path: Path) -> tuple[Row | None, list[Row]]:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
    first = next(parse(head), None)
    return first, list(parse(tail))


def _outs(rows: list[Row]) -> str:
    tags = [row["values"].get(HASHES_TAG, "") for row in rows if row["type"] == "tags"]
    return next((tag for tag in reversed(tags) if tag), "")


def _run(path: Path, first: Row, last: list[Row], stage: str) -> dict[str, Any]:
    shipment = Shipment.of(path)
    ended = [row["time"] for row in last if row["type"] == "end"]
    moment = time.gmtime(float(first["time"]))
    run = {
        "stage": stage,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
        **(first.get("where") or {}),
        **git.of_tags(shipment.tags),
        "seconds": round(max(0.0, ended[-1] - float(first["time"])), 1) if ended else None,
        "run": shipment.run_id,
    }
    return {name: value for name, value in run.items() if value is not None}
