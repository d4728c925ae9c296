"""What a stage reports while it runs: rows of JSON lines beside its outputs.

The method imports no tracking server. Whoever runs a stage sends the rows (`flows.tracking`).
A row is `{"type": …, "time": unix seconds, …}`; the first is `start`, the last `end` or `error`.
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

#: The environment variable that says where a stage writes its rows (a file).
ROWS_VARIABLE = "LORI_ROWS"
#: Where rows go otherwise, relative to the workspace: `.lori/rows/<stage>/<time>-<pid>.jsonl`.
ROWS_FOLDER = Path(".lori/rows")


_STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}(@[A-Za-z0-9][A-Za-z0-9_.-]{0,119})?")


class RunTracker(Protocol):
    """Receives what a stage reports."""

    def start(self, stage: str) -> None:
        """Say which stage begins (`train@math`)."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Report parameters, nested mappings allowed."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Report numbers, at a step or as final values (`step=None`)."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Report tags."""

    def dataset(self, name: str, digest: str, source: str, rows: int) -> None:
        """Report a data set that was read; `digest` is the SHA-256 of its file."""

    def artifact(self, path: Path) -> None:
        """Report a file or folder worth keeping beside the run."""

    def end(self) -> None:
        """Say that the stage finished."""

    def error(self, message: str, exit_code: int) -> None:
        """Say that the stage failed; exit code 2 means that a retry is pointless."""

    def forget(self) -> None:
        """Take back what was reported: the stage was refused and has done nothing."""


#: Whose versions a result may depend on.
PACKAGES = ("torch", "transformers", "peft", "numpy")


def where() -> dict[str, str]:
    """Return who runs this process on what: host, user, Python, packages, GPUs it may see."""
    import getpass
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"host": platform.node(), "python": platform.python_version()}
    try:
        found["user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        found["user"] = str(os.getuid())
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        found["gpus"] = os.environ["CUDA_VISIBLE_DEVICES"]
    return found


class NullTracker:
    """Forgets everything."""

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
    """Return the time, unix seconds; never less than before, though the clock be set back."""
    global _latest
    _latest = max(_latest, time.time())
    return _latest


class FileTracker:
    """Appends rows to a JSON-lines file, each written whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: The folders that are made for the file, the innermost first.
        self._made = [folder for folder in path.parents if not folder.exists()]

    def _write(self, kind: str, **fields: Any) -> None:
        row = {"type": kind, "time": now(), **redacted(fields)}
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(dumps(row, default=lambda value: redact(str(value))) + "\n")

    def start(self, stage: str) -> None:
        self._write("start", stage=stage, pid=os.getpid(), where=where())

    def params(self, values: Mapping[str, Any]) -> None:
        self._write("params", values=dict(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._write("metrics", values=dict(values), step=step)

    def tags(self, values: Mapping[str, str]) -> None:
        self._write("tags", values=dict(values))

    def dataset(self, name: str, digest: str, source: str, rows: int) -> None:
        self._write("dataset", name=name, digest=digest, source=source, rows=rows)

    def artifact(self, path: Path) -> None:
        self._write("artifact", path=str(path))

    def end(self) -> None:
        self._write("end")

    def error(self, message: str, exit_code: int) -> None:
        self._write("error", message=message, exit_code=exit_code)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # not there, or somebody else's files are in it
            for folder in self._made:
                folder.rmdir()


def stage_tracker(stage: str) -> FileTracker:
    """Return the tracker of one stage's process: the file named by `LORI_ROWS`, or a new one."""
    named = os.environ.get(ROWS_VARIABLE)
    if not _STAGE.fullmatch(stage):
        raise InputError(
            f"{shown(stage)} is no stage: its name, and a task's, merge's or point's, is made of "
            "letters, digits, ., - and _"
        )
    default = ROWS_FOLDER / stage / f"{int(time.time() * 1000)}-{os.getpid()}.jsonl"
    return FileTracker(Path(named) if named else default)
