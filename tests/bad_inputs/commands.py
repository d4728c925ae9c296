"""Running the `lori` command, seeing what it left, and what is expected where it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent.parent
#: Seconds of a processor that a refusal may take, and after which a command is killed that waits:
#: on a busy machine a process may get no processor for a while.
SECONDS = 10.0
WAIT = 60.0
#: Bytes that a refusal may need beside the libraries, which take about 470 MB of 600 MB.
GROWTH = 128 << 20
#: Of larger files the beginning is hashed.
_HASHED = 16 << 20


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    argv: tuple[str, ...]
    #: None where it was killed after `WAIT`.
    code: int | None
    out: str
    err: str
    #: Of a processor.
    seconds: float
    #: The peak of resident memory above the libraries', in bytes.
    growth: int
    #: What was below the watched folder: name -> kind, size and hash.
    before: Mapping[str, str]
    after: Mapping[str, str]

    def refusal(self) -> str:
        """Return the one line of a command that refused its input as it must.

        Raises:
            AssertionError: the exit code is not 2, standard error is not one line that begins with
                `error: `, anything was written, or it took too long or too much memory.
        """
        shown = f"lori {' '.join(self.argv)}\nexit code {self.code}\n{self.err[-3000:]}"
        assert self.code is not None, f"killed after {WAIT:.0f} s: {shown}"
        assert self.seconds <= SECONDS, f"{self.seconds:.1f} s: {shown}"
        assert self.code == 2, shown
        assert "Traceback" not in self.err, shown
        lines = self.err.splitlines()
        assert len(lines) == 1, f"{len(lines)} lines: {shown}"
        assert lines[0].startswith("error: "), shown
        assert self.written() == [], f"{self.written()} written: {shown}"
        assert self.growth <= GROWTH, f"{self.growth >> 20} MB: {shown}"
        return lines[0].removeprefix("error: ")

    def written(self) -> list[str]:
        """Return the names of what was made, changed or taken away."""
        names = {*self.before, *self.after}
        return sorted(name for name in names if self.before.get(name) != self.after.get(name))


class Commands:
    """Runs commands; the libraries are imported once, when the first of them is run."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()  # the end of its input ends it
            self._process = None

    def run(
        self,
        argv: Sequence[str],
        folder: Path,
        *,
        watched: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run `lori ARGV` in a folder.

        Args:
            argv: as the shell gives them; bytes that are not UTF-8 as lone surrogates.
            folder: the current folder of the command.
            watched: the folder below which nothing may be written; `folder` unless given.
            environment: additions to the environment.
        """
        watched = watched or folder
        before = listing(watched)
        request = {
            "argv": list(argv),
            "folder": str(folder),
            "environment": dict(environment or {}),
            "seconds": WAIT,
        }
        answer = self._ask(json.dumps(request))
        return Outcome(argv=tuple(argv), before=before, after=listing(watched), **answer)

    def _ask(self, request: str) -> dict[str, object]:
        server = self._process = self._process or _start()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(request + "\n")
        server.stdin.flush()
        answer: dict[str, object] = json.loads(server.stdout.readline())
        return answer


def _start() -> subprocess.Popen[str]:
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    paths = {"PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent)))}
    server = subprocess.Popen(
        [sys.executable, "-m", "bad_inputs.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **one_thread, **paths, "HF_HUB_OFFLINE": "1"},
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def listing(folder: Path) -> dict[str, str]:
    """Return all names below a folder with their kind, size and hash; no link is followed."""
    found: dict[str, str] = {}
    for place, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(place, name)  # noqa: PTH118 - of bytes, for any name there is
            found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = _described(path)
    return found


def _described(path: bytes) -> str:
    said = os.lstat(path)
    kind = stat.filemode(said.st_mode)
    if stat.S_ISLNK(said.st_mode):
        return f"{kind} {os.readlink(path)!r}"  # noqa: PTH115
    if not stat.S_ISREG(said.st_mode):
        return kind
    with open(path, "rb") as file:  # noqa: PTH123
        beginning = hashlib.sha256(file.read(_HASHED)).hexdigest()
    return f"{kind} {said.st_size} {said.st_mtime_ns} {beginning}"
