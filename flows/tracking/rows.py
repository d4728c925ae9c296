"""The files of rows that stages write: names, reading while they grow, and what was shipped."""

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

#: The name under which the flow reports on the whole pipeline, as a stage reports on itself.
PIPELINE = "pipeline"

Row = dict[str, Any]


def new_rows_file(workspace: Path, stage: str) -> Path:
    """Return a fresh name `.lori/rows/<stage>/<utc time>-<short id>.jsonl`; nothing is written."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return workspace / ROWS_FOLDER / stage / f"{moment}-{uuid.uuid4().hex[:8]}.jsonl"


def rows_files(workspace: Path) -> list[Path]:
    """Return every rows file of a workspace, oldest first, a pipeline before its stages."""
    found = [path for path in (workspace / ROWS_FOLDER).rglob("*.jsonl") if path.stat().st_size]
    return sorted(found, key=lambda path: (stage_of(path, workspace) != PIPELINE, start_of(path)))


def stage_of(rows: Path, workspace: Path) -> str:
    """Return the stage that a rows file belongs to, from the folder it lies in."""
    return rows.parent.relative_to(workspace / ROWS_FOLDER).as_posix()


def append(path: Path, kind: str, /, **fields: Any) -> None:
    """Add one row to a rows file, as a stage's tracker does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        row = {"type": kind, "time": now(), **redacted(fields)}
        file.write(dumps(row, default=lambda value: redact(str(value))) + "\n")


def read_from(path: Path, offset: int, limit: int = 4 << 20) -> tuple[list[Row], int]:
    """Return the complete rows after `offset` and the offset behind them.

    A last line without its end is left for the next call; a line that is not JSON is dropped.
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
    """Yield the rows in a part of a file; what is no whole row is passed over."""
    for line in chunk.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "type" in row:
            yield {"time": 0.0, **row}


def start_of(path: Path) -> float:
    """Return when the first row of a file was written, unix seconds."""
    rows, _ = read_from(path, 0, limit=4096)
    return float(rows[0]["time"]) if rows else path.stat().st_mtime


@dataclass
class Shipment:
    """How far a rows file has been shipped: `<rows>.shipped`, beside it.

    `parent` is the rows file of the pipeline, relative to the workspace; `tags` are put on the run
    when it is made.
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
        """Read the shipment of a rows file; an absent or broken one starts from the beginning."""
        path = rows.with_name(rows.name + ".shipped")
        try:
            return cls(path=path, **json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls(path=path)

    @property
    def known(self) -> bool:
        """Whether something has been written about this file already."""
        return self.path.exists()

    @property
    def is_open(self) -> bool:
        """Whether a run was begun in MLflow and not ended."""
        return self.run_id is not None and not self.ended

    def save(self) -> None:
        """Write it atomically."""
        values = asdict(self) | {"tags": redacted(self.tags)}
        del values["path"]
        write_json(self.path, values)
