"""Rows files, which stages write: their names, reading them while they grow, what was shipped."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lori_core.core.files.atomic import dumps, write_json
from lori_core.core.redaction import redact, redacted
from lori_core.core.tracking import ROWS_FOLDER, now

#: The stage name of the rows that the flow writes about the whole pipeline.
PIPELINE = "pipeline"

Row = dict[str, Any]


def new_rows_file(workspace: Path, stage: str) -> Path:
    """Return a new path `.lori/rows/<stage>/<utc time>-<short id>.jsonl`; write nothing."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return workspace / ROWS_FOLDER / stage / f"{moment}-{uuid.uuid4().hex[:8]}.jsonl"


def rows_files(workspace: Path) -> list[Path]:
    """Return all rows files of a workspace: those of pipelines first, then by start time."""
    files = [path for path in (workspace / ROWS_FOLDER).rglob("*.jsonl") if path.stat().st_size]
    return sorted(files, key=lambda path: (stage_of(path, workspace) != PIPELINE, start_of(path)))


def stage_of(rows: Path, workspace: Path) -> str:
    """Return the stage of a rows file, from the name of its folder."""
    return rows.parent.relative_to(workspace / ROWS_FOLDER).as_posix()


def append(path: Path, kind: str, /, **fields: Any) -> None:
    """Append one row to a rows file, as a stage's tracker does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        row = {"type": kind, "time": now(), **redacted(fields)}
        file.write(dumps(row, default=lambda value: redact(str(value))) + "\n")


def read_from(path: Path, offset: int, limit: int = 4 << 20) -> tuple[list[Row], int]:
    """Return the complete rows after `offset`, and the offset of the next row, in bytes.

    An incomplete last line is left for the next call; a line that is not JSON is dropped.

    Args:
        path: the rows file.
        offset: where to start, in bytes.
        limit: how many bytes to read at most; -1 for all.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            chunk = file.read(limit)
    except FileNotFoundError:
        return [], offset
    end = chunk.rfind(b"\n") + 1
    return list(parse(chunk[:end])), offset + end


def last_end(path: Path) -> Row | None:
    """Return the last `end` or `error` row of a file, or `None` if the stage wrote neither."""
    rows, _ = read_from(path, 0, limit=-1)
    ends = [row for row in rows if row["type"] in ("end", "error")]
    return ends[-1] if ends else None


def parse(chunk: bytes) -> Iterator[Row]:
    """Yield the rows in a part of a file; skip lines that are not valid rows."""
    for line in chunk.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "type" in row:
            yield {"time": 0.0, **row}


def start_of(path: Path) -> float:
    """Return when the first row of a file was written, in Unix seconds."""
    rows, _ = read_from(path, 0, limit=4096)
    return float(rows[0]["time"]) if rows else path.stat().st_mtime


@dataclass
class Shipment:
    """How far a rows file has been sent to MLflow; saved beside it as `<rows>.shipped`.

    Attributes:
        path: the file `<rows>.shipped`.
        run_id: the MLflow run; None before it is created.
        offset: the bytes of the rows file that were sent.
        parent: the pipeline's rows file, relative to the workspace.
        tags: tags for the run when it is created.
        ended: whether the run was terminated in MLflow.
        hashed: whether the run has the hashes of the stage's outputs.
    """

    path: Path
    run_id: str | None = None
    offset: int = 0
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    hashed: bool = False

    @classmethod
    def of(cls, rows: Path) -> Shipment:
        """Return the shipment of a rows file; a new one if it is missing or damaged."""
        path = rows.with_name(rows.name + ".shipped")
        try:
            return cls(path=path, **json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls(path=path)

    @property
    def known(self) -> bool:
        """Whether the shipment was saved before."""
        return self.path.exists()

    @property
    def is_open(self) -> bool:
        """Whether the run was created in MLflow and not terminated."""
        return self.run_id is not None and not self.ended

    def save(self) -> None:
        """Write the shipment atomically, without secrets in its tags."""
        values = asdict(self) | {"tags": redacted(self.tags)}
        del values["path"]
        write_json(self.path, values)
