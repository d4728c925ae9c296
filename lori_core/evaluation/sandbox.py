"""Running a generated program against its tests, so that it can neither do harm nor cheat.

A program gets an interpreter and nothing of the host's (`isolation` says how), limits on all it can
use up, and a judge (`judge`) that holds the tests in another process and asks it for answers.

What is left to trust: the kernel (a hole in its namespaces is a way out), and the tests, which run
in the judge. Memory is limited for each process, so a program may use `processes` times as much;
while it lives it can also keep `processes` processors busy. The machine's load can make a slow
program miss `wall_seconds`. With `unsafe`, a program is a plain process of the user's: it can read
and write all the user can, and by leaving its session outlive its time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

from lori_core.evaluation import isolation as ways
from lori_core.evaluation.isolation import Isolation

__all__ = [
    "Isolation",
    "Limits",
    "Outcome",
    "Program",
    "detect",
    "run_program",
    "run_programs",
    "works",
]

Status = Literal["passed", "failed", "timeout", "error", "refused"]

#: Time to start and end a sandbox, on top of the program's own.
GRACE_SECONDS = 5.0
REFUSAL = (
    "generated code is not run without isolation, and this machine offers none: "
    "apt-get install bubblewrap (or allow user namespaces); "
    "evaluation.unsafe_code = true runs it without"
)


@dataclass(frozen=True)
class Program:
    """A source, and the tests it must pass.

    Attributes:
        candidate: the untrusted source; defines the function `entry_point`.
        tests: the trusted source; defines `check(candidate)`, which raises if something is wrong.
            It sees the function under test and nothing else of the candidate.
        entry_point: the name of the function.
    """

    candidate: str
    tests: str
    entry_point: str


@dataclass(frozen=True)
class Limits:
    """What one program may use up. CPU time, memory and file size count for each process."""

    wall_seconds: float = 5.0
    cpu_seconds: int = 4
    memory_bytes: int = 512 << 20
    processes: int = 16
    """Processes and threads together, three of which are the sandbox's own."""
    file_bytes: int = 1 << 20
    output_bytes: int = 64 << 10
    """What is read from the sandbox at most."""


@dataclass(frozen=True)
class Outcome:
    """How a program did.

    Attributes:
        status: `passed`; `failed`, a test or the program did; `timeout`, wall or processor time;
            `error`, the sandbox or the tests are broken; `refused`, there is no isolation.
        detail: one line for people; empty when passed.
        seconds: wall time, the sandbox's own included.
    """

    status: Status
    detail: str
    seconds: float


DEFAULT = Limits()
TRIVIAL = Program(
    candidate="def successor(n):\n    return n + 1\n",
    tests="def check(candidate):\n    assert candidate(1) == 2\n",
    entry_point="successor",
)


@functools.cache
def works(isolation: Isolation) -> bool:
    """Say whether a trivial program really runs isolated in this way; tried once a process."""
    return isolation is not Isolation.none and _run(TRIVIAL, DEFAULT, isolation).status == "passed"


def detect() -> Isolation:
    """Return the strongest isolation that works on this machine."""
    return next((way for way in Isolation if works(way)), Isolation.none)


def run_program(
    program: Program,
    limits: Limits = DEFAULT,
    isolation: Isolation | None = None,
    unsafe: bool = False,
) -> Outcome:
    """Run one program against its tests.

    `isolation` defaults to `detect()`. Where it is `none`, the outcome is `refused` unless
    `unsafe`: then the program runs as a plain process with resource limits.
    """
    isolation = detect() if isolation is None else isolation
    if isolation is Isolation.none and not unsafe:
        return Outcome("refused", REFUSAL, 0.0)
    return _run(program, limits, isolation)


def run_programs(
    programs: Sequence[Program],
    limits: Limits = DEFAULT,
    isolation: Isolation | None = None,
    unsafe: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Run programs side by side and return their outcomes in the same order.

    `workers` defaults to the number of processors; `progress` is called in this thread with the
    numbers of programs done and in all.
    """
    isolation = detect() if isolation is None else isolation
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1) as pool:
        futures = [
            pool.submit(run_program, program, limits, isolation, unsafe) for program in programs
        ]
        for done, _ in enumerate(as_completed(futures), start=1):
            if progress is not None:
                progress(done, len(futures))
        return [future.result() for future in futures]


@functools.cache
def _command(isolation: Isolation) -> list[str]:
    judge = Path(__file__).with_name("judge.py").read_text(encoding="utf-8")
    return ways.command(isolation, judge)


def _run(program: Program, limits: Limits, isolation: Isolation) -> Outcome:
    started = time.monotonic()
    deadline = started + limits.wall_seconds + GRACE_SECONDS
    # In a file without a name: never on a command line, and no writer that could block.
    with tempfile.TemporaryFile() as request:
        request.write(json.dumps({**asdict(program), "limits": asdict(limits)}).encode())
        request.seek(0)
        try:
            process = subprocess.Popen(
                _command(isolation),
                stdin=request,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=ways.ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome("error", f"the sandbox cannot start: {error}", 0.0)
    with process:
        try:
            output = _read(process, deadline, limits.output_bytes)
        finally:
            _kill(process)
    seconds = time.monotonic() - started
    if output is None:
        return Outcome("timeout", f"no verdict within {limits.wall_seconds:g} s", seconds)
    return _outcome(output, seconds)


def _read(process: subprocess.Popen[bytes], deadline: float, most: int) -> bytes | None:
    """Read the output to its end, or to `most` bytes; None when `deadline` came first."""
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    output = b""
    while len(output) < most:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        part = os.read(descriptor, most - len(output))
        if not part:
            break
        output += part
    return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the sandbox's maker; process 1 of the sandbox, and so all inside, die with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(output: bytes, seconds: float) -> Outcome:
    """Read the judge's verdict: the last line that was written."""
    lines = output.decode(errors="replace").strip().splitlines()
    try:
        verdict = json.loads(lines[-1])
        return Outcome(cast(Status, verdict["status"]), str(verdict["detail"]), seconds)
    except (IndexError, ValueError, TypeError, KeyError):
        said = " ".join(lines[-3:])[:500] or "it said nothing"
        return Outcome("error", f"the sandbox gave no verdict: {said}", seconds)
