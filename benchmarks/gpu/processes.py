"""Run parts of a benchmark one after another, each in a process of its own.

A part that fails, is killed or takes too long leaves nothing on the device, and the next parts run.
Imports take longer than most parts, so several processes start at once, import, and wait for their
order; nothing is measured before all of them have.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Seconds that a process may take to import.
START_SECONDS = 180.0


@dataclass
class Process:
    """A process that waits for its order.

    Attributes:
        process: the process.
        ready: the file that it creates when it has imported everything.
        log: the file of its standard output and standard error.
    """

    process: subprocess.Popen[str]
    ready: Path
    log: Path

    def kill(self) -> None:
        """Kill the process and its children, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


class Processes:
    """Starts processes ahead and gives each one order.

    Args:
        command: starts a process; the path of its `ready` file is appended. The process reads its
            order, one line, from standard input.
        folder: for the logs and the `ready` files.
        ahead: the most processes that wait at once.
    """

    def __init__(self, command: Sequence[str], folder: Path, ahead: int) -> None:
        self.command, self.folder, self.ahead = list(command), folder, ahead
        self.waiting: deque[Process] = deque()
        self.started = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[Processes]:
        """Kill the processes that still wait at the end of a `with` block."""
        try:
            yield self
        finally:
            for process in self.waiting:
                process.kill()

    def run(self, order: str, needed: int, limit: float) -> tuple[str | None, Path]:
        """Give an order to a process that waits, and wait until it ends.

        Args:
            order: the order, one line.
            needed: the number of orders that are still to come, with this one.
            limit: the seconds that it may take after its imports.

        Returns:
            Why it failed, or None; and its log.
        """
        if not self.waiting:
            self._start(min(needed, self.ahead))
        chosen = self.waiting.popleft()
        try:
            return self._ended(chosen, order, limit), chosen.log
        finally:
            chosen.kill()

    def _start(self, count: int) -> None:
        for _ in range(count):
            self.started += 1
            ready, log = (self.folder / f"{self.started}.{end}" for end in ("ready", "log"))
            ready.unlink(missing_ok=True)
            with log.open("w", encoding="utf-8") as file:
                process = subprocess.Popen(
                    [*self.command, str(ready)], stdin=subprocess.PIPE, stdout=file, stderr=file,
                    text=True, start_new_session=True,
                )  # fmt: skip
            self.waiting.append(Process(process, ready, log))
        _until(
            lambda: all(p.ready.exists() or p.process.poll() is not None for p in self.waiting),
            START_SECONDS,
        )

    def _ended(self, chosen: Process, order: str, limit: float) -> str | None:
        process = chosen.process
        if not chosen.ready.exists() and process.poll() is None:
            return f"its imports took longer than {START_SECONDS:.0f} s"
        try:
            # A process that died early has closed its end of the pipe; its log says why.
            with contextlib.suppress(BrokenPipeError):
                process.communicate(order + "\n", timeout=limit)
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"it took longer than {limit:.0f} s"
        if code < 0:
            return f"it was killed by {signal.Signals(-code).name}"
        return f"exit code {code}" if code else None


def one_gpu(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with the first visible GPU only; Trainer would use all that it sees."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "0")
    return {**environment, "CUDA_VISIBLE_DEVICES": visible.partition(",")[0].strip()}


def _until(done: Callable[[], bool], seconds: float) -> None:
    """Wait until something is done, at most for some seconds."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
