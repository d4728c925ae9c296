"""Run a command in a session of its own, read its output by line, and end its process group."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from lori_core.core.redaction import redact

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.5


def run_lines(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    line: Callable[[str], None],
    stop: threading.Event,
) -> int:
    """Run a command, pass each redacted output line to `line`, and return the exit code.

    When `stop` is set or an exception is raised, the whole process group gets SIGTERM, and after
    ten seconds SIGKILL. The exit code of a command ended by a signal is negative.
    """
    process = subprocess.Popen(
        list(command),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    output = cast(IO[bytes], process.stdout)
    try:
        _follow(output, line, stop)
        if not stop.is_set():
            return process.wait()
    finally:
        end_group(process)
        output.close()
    return process.wait()


def _follow(output: IO[bytes], line: Callable[[str], None], stop: threading.Event) -> None:
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while not stop.is_set():
            if not selector.select(POLL_SECONDS):
                continue
            chunk = os.read(output.fileno(), 1 << 16)
            # A progress bar redraws its line after a carriage return; each redraw becomes a line.
            *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
            if not chunk:
                lines.append(pending)
            for text in lines:
                if text.strip():
                    line(redact(text.decode("utf-8", "replace").rstrip()))
            if not chunk:
                return


def end_group(process: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """End a process and its group: SIGTERM, then SIGKILL after `grace` seconds."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    # A child may still run after the group's leader has ended.
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
