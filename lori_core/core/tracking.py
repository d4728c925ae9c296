"""Record a stage's parameters, metrics and events as JSON lines in a file.

`lori_core` imports no tracking client; `flows.tracking` sends the rows to MLflow. A row is
`{"type": …, "time": unix seconds, …}`; the first is `start`, the last `end` or `error`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lori_core.core.errors import InputError, shown
from lori_core.core.faults import naming
from lori_core.core.files.atomic import dumps
from lori_core.core.redaction import redact, redacted

#: The environment variable with the file that a stage writes its rows to.
ROWS_VARIABLE = "LORI_ROWS"
#: The default folder, relative to the workspace: `.lori/rows/<stage>/<time>-<pid>.jsonl`.
ROWS_FOLDER = Path(".lori/rows")


_STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}(@[A-Za-z0-9][A-Za-z0-9_.-]{0,119})?")


class RunTracker(Protocol):
    """Receives what a stage reports."""

    def start(self, stage: str) -> None:
        """Report the start of a stage (`train@math`)."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Report parameters; mappings may be nested."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Report metrics, at a step or as final values (`step=None`)."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Report tags."""

    def dataset(self, name: str, digest: str, source: str, rows: int) -> None:
        """Report a data set that was read; `digest` is its file's SHA-256, `rows` its length."""

    def artifact(self, path: Path) -> None:
        """Report a file or folder to store with the run."""

    def end(self) -> None:
        """Report that the stage finished."""

    def error(self, message: str, exit_code: int) -> None:
        """Report that the stage failed; exit code 2 means that a retry is pointless."""

    def forget(self) -> None:
        """Delete everything reported: the stage was refused before it did anything."""


#: Packages whose versions are recorded, since results may depend on them.
PACKAGES = ("torch", "transformers", "peft", "numpy")


def where() -> dict[str, str]:
    """Return this process's host, user, versions of Python and packages, and visible GPUs."""
    import getpass
    import platform
    from importlib.metadata import PackageNotFoundError, version

    facts = {"host": platform.node(), "python": platform.python_version()}
    try:
        facts["user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        facts["user"] = str(os.getuid())
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        facts["gpus"] = os.environ["CUDA_VISIBLE_DEVICES"]
    return facts


class NullTracker:
    """A tracker that records nothing."""

    def start(self, stage: str) -> None: ...
    def params(self, values: Mapping[str, Any]) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, source: str, rows: int) -> None: ...
    def artifact(self, path: Path) -> None: ...
    def end(self) -> None: ...
    def error(self, message: str, exit_code: int) -> None: ...
    def forget(self) -> None: ...


_latest = 0.0


def now() -> float:
    """Return the time in unix seconds; it never decreases, even if the clock is set back."""
    global _latest
    _latest = max(_latest, time.time())
    return _latest


class FileTracker:
    """A tracker that appends rows to a JSON-lines file, each in one write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: The folders that are created for the file, the innermost first.
        self._created_folders = [folder for folder in path.parents if not folder.exists()]

    def _write(self, kind: str, **fields: Any) -> None:
        row = {"type": kind, "time": now(), **redacted(fields)}
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(dumps(row, default=lambda value: redact(str(value))) + "\n")

    def start(self, stage: str) -> None:
        """Append the `start` row: stage, process id, host and versions."""
        self._write("start", stage=stage, pid=os.getpid(), where=where())

    def params(self, values: Mapping[str, Any]) -> None:
        """Append a `params` row."""
        self._write("params", values=dict(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Append a `metrics` row."""
        self._write("metrics", values=dict(values), step=step)

    def tags(self, values: Mapping[str, str]) -> None:
        """Append a `tags` row."""
        self._write("tags", values=dict(values))

    def dataset(self, name: str, digest: str, source: str, rows: int) -> None:
        """Append a `dataset` row."""
        self._write("dataset", name=name, digest=digest, source=source, rows=rows)

    def artifact(self, path: Path) -> None:
        """Append an `artifact` row."""
        self._write("artifact", path=str(path))

    def end(self) -> None:
        """Append the `end` row."""
        self._write("end")

    def error(self, message: str, exit_code: int) -> None:
        """Append the `error` row."""
        self._write("error", message=message, exit_code=exit_code)

    def forget(self) -> None:
        """Delete the file, and the folders that were created for it."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # missing, or contains other files
            for folder in self._created_folders:
                folder.rmdir()


def stage_tracker(stage: str) -> FileTracker:
    """Return a tracker for a stage that writes to the file in `LORI_ROWS`, or to a new one.

    Raises:
        InputError: the stage's name contains other characters than letters, digits, `.-_@`.
    """
    named = os.environ.get(ROWS_VARIABLE)
    if not _STAGE.fullmatch(stage):
        raise InputError(
            f"{shown(stage)} is no stage: its name, and a task's, merge's or point's, is made of "
            "letters, digits, ., - and _"
        )
    default = ROWS_FOLDER / stage / f"{int(time.time() * 1000)}-{os.getpid()}.jsonl"
    return FileTracker(Path(named) if named else default)
