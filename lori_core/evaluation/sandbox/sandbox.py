"""A sandbox that runs a generated program against its tests; the program cannot harm or cheat.

A program gets an interpreter without access to the host (`isolation`), limits on all resources,
and only the system calls that Python needs (`system_calls`). The tests run in another process, the
test runner (`test_runner`), which calls the function under test over a socket. The test runner
reports the outcome through a pipe that only it has, signed with a key that only it knows; any other
content of the pipe is an error. Printed output goes to another pipe and does not matter.

What must be trusted: the kernel (an error in its namespaces is a way out) and the tests, which run
in the test runner. Memory is limited for each process, and for all processes together if this user
has control groups (`control_group`); without them a program may use `processes` times as much. A
running program can also keep `processes` processors busy. A loaded machine can make a slow program
exceed `wall_seconds`. With `unsafe`, a program is an ordinary process of the user: it can read and
write everything that the user can, and can outlive its time limit by leaving its session.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hmac
import json
import marshal
import os
import platform
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from lori_core.evaluation.sandbox import control_group, system_calls
from lori_core.evaluation.sandbox import isolation as ways
from lori_core.evaluation.sandbox.isolation import Isolation

__all__ = [
    "Isolation",
    "Limits",
    "Outcome",
    "Program",
    "detect",
    "run_program",
    "run_programs",
    "why_not",
    "works",
]

Status = Literal["passed", "failed", "timeout", "unsupported", "error", "refused"]

#: The limit of an outcome's length in the pipe (bytes).
VERDICT_BYTES = 64 << 10
#: The number of processes outside a sandbox that set it up.
LAUNCHERS = 4
#: The time to start and end a sandbox, in addition to the program's (seconds).
GRACE_SECONDS = 5.0
REFUSAL = (
    "generated code is not run without isolation, and this machine offers none: "
    "apt-get install bubblewrap (or allow user namespaces; in a container, infra/seccomp.json); "
    "both need a kernel with seccomp, on x86_64 or aarch64; "
    "evaluation.unsafe_code = true runs it without"
)


@dataclass(frozen=True)
class Program:
    """A generated program and the tests that it must pass.

    Attributes:
        source: the untrusted source code; defines the function `entry_point`.
        tests: the trusted source code; defines `check(candidate)`, which raises an exception if a
            test fails. `candidate` is the function under test; the tests see nothing else of the
            program.
        entry_point: the name of the function under test.
    """

    source: str
    tests: str
    entry_point: str


@dataclass(frozen=True)
class Limits:
    """The resources of one program. CPU time, memory and file size are limits of each process; with
    control groups, all processes including the test runner together have twice the memory."""

    wall_seconds: float = 5.0
    cpu_seconds: int = 4
    memory_bytes: int = 512 << 20
    processes: int = 16
    """Processes and threads together, including three of the sandbox."""
    file_bytes: int = 1 << 20
    output_bytes: int = 64 << 10
    """The limit of what a sandbox may print before its outcome; output of tests is discarded."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a program.

    Attributes:
        status: `passed`; `failed`, a test or the program failed; `timeout`, the limit of wall or
            CPU time; `unsupported`, a value cannot be passed between the tests and the program, so
            the program is neither right nor wrong; `error`, the sandbox or the tests are broken;
            `refused`, there is no isolation. All but the first count as not passed.
        detail: the reason in one line; empty if passed.
        seconds: wall time, including the sandbox's own.
    """

    status: Status
    detail: str
    seconds: float


DEFAULT = Limits()
TRIVIAL = Program(
    source="def successor(n):\n    return n + 1\n",
    tests="def check(candidate):\n    assert candidate(1) == 2\n",
    entry_point="successor",
)


@functools.cache
def works(isolation: Isolation) -> bool:
    """Return whether a trivial program runs in this isolation; cached for the process."""
    return isolation is not Isolation.none and _run(TRIVIAL, DEFAULT, isolation).status == "passed"


def detect() -> Isolation:
    """Return the strongest isolation that works on this machine."""
    return next((way for way in Isolation if works(way)), Isolation.none)


def why_not(isolation: Isolation) -> str:
    """Return why a trivial program does not run in this isolation; empty if it does."""
    return "" if works(isolation) else _run(TRIVIAL, DEFAULT, isolation).detail


def run_program(
    program: Program,
    limits: Limits = DEFAULT,
    isolation: Isolation | None = None,
    unsafe: bool = False,
) -> Outcome:
    """Run one program against its tests and return the outcome.

    `isolation` defaults to `detect()`. With `Isolation.none` the outcome is `refused`, unless
    `unsafe` is true: then the program runs as an ordinary process with resource limits.
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
    """Run programs in parallel as `run_program` does; return their outcomes in the same order.

    `workers` defaults to the number of processors; `progress` is called in this thread with the
    number of finished programs and of all programs.
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


#: The modules that run in the sandbox: the test runner last, after the modules that it imports.
PARTS = ("wire", "candidate", "test_runner")
#: The script that runs them, compiled by the same interpreter to save milliseconds.
BOOT = """
import binascii, marshal, sys, types
*parts, test_runner = marshal.loads(binascii.a2b_base64({code!r}))
for part in parts:
    sys.modules[part.co_filename] = module = types.ModuleType(part.co_filename)
    exec(part, module.__dict__)
exec(test_runner)
"""


@functools.cache
def _sandbox(isolation: Isolation) -> list[str]:
    parts = [
        compile(
            Path(__file__).with_name(f"{name}.py").read_bytes(), f"{__package__}.{name}", "exec"
        )
        for name in PARTS
    ]
    code = base64.b64encode(marshal.dumps(parts)).decode()
    return ways.command(isolation, BOOT.format(code=code))


def _command(isolation: Isolation, verdicts: int) -> list[str]:
    return [*_sandbox(isolation), str(verdicts)]


@functools.cache
def _filter(isolation: Isolation) -> str:
    """Return the filter of system calls in hexadecimal digits.

    Without isolation the filter is optional, and empty if there is none for this machine.

    Raises:
        OSError: there is no filter for this machine, and `isolation` needs one.
    """
    machine = platform.machine()
    if sys.platform.startswith("linux") and machine in system_calls.MACHINES:
        return system_calls.program(machine).hex()
    if isolation is Isolation.none:
        return ""
    raise OSError(
        f"no filter of system calls for {machine!r}, only for {', '.join(system_calls.MACHINES)}"
    )


def _run(program: Program, limits: Limits, isolation: Isolation) -> Outcome:
    started = time.monotonic()
    deadline = started + limits.wall_seconds + GRACE_SECONDS
    key = secrets.token_bytes(32)
    verdicts, theirs = os.pipe()
    try:
        with (
            control_group.limited(*_total(limits)) as group,
            _start(program, limits, isolation, key, theirs, group) as process,
        ):
            os.close(theirs)
            theirs = -1
            try:
                line, printed = _read(process, verdicts, deadline, limits.output_bytes)
            finally:
                _kill(process)
            out_of_memory = group is not None and group.out_of_memory
    except OSError as error:
        return Outcome("error", f"the sandbox cannot start: {error}", 0.0)
    finally:
        os.close(verdicts)
        if theirs >= 0:
            os.close(theirs)
    seconds = time.monotonic() - started
    if line is None:
        return Outcome("timeout", f"no verdict within {limits.wall_seconds:g} s", seconds)
    if not line and out_of_memory:
        most = _total(limits)[0] >> 20
        return Outcome("failed", f"more than {most} MB of memory, all processes together", seconds)
    return _outcome(line, key, printed, seconds)


def _total(limits: Limits) -> tuple[int, int]:
    """Return the memory (bytes) and the number of processes of a whole sandbox.

    The test runner may have as much memory as a process of the program, and `/tmp` is in memory.
    """
    return 2 * limits.memory_bytes + ways.TMP_BYTES, limits.processes + LAUNCHERS


def _start(
    program: Program,
    limits: Limits,
    isolation: Isolation,
    key: bytes,
    verdicts: int,
    group: control_group.ControlGroup | None,
) -> subprocess.Popen[bytes]:
    request = {**asdict(program), "limits": asdict(limits), "key": key.hex()}
    request["filter"] = _filter(isolation)
    command = _command(isolation, verdicts)
    # An unnamed file: the request is on no command line, and writing it cannot block.
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(request).encode())
        file.seek(0)
        return subprocess.Popen(
            group.entered(command) if group else command,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(verdicts,),
            env=ways.ENVIRONMENT,
            start_new_session=True,
        )


def _read(
    process: subprocess.Popen[bytes], verdicts: int, deadline: float, most: int
) -> tuple[bytes | None, bytes]:
    """Return the first line of the pipe `verdicts`, and what was printed before it.

    The line is empty if the pipe closes without one, or if more than `most` bytes are printed; it
    is None if `deadline` is reached first.
    """
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    texts = {verdicts: b"", process.stdout.fileno(): b""}
    (_, output) = texts
    poll = select.poll()
    for descriptor in texts:
        poll.register(descriptor, select.POLLIN)
    opened = set(texts)
    while opened:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            return None, texts[output]
        for descriptor, _ in ready:
            part = os.read(descriptor, 1 << 16)
            texts[descriptor] += part
            if not part:
                poll.unregister(descriptor)
                opened.remove(descriptor)
        if b"\n" in texts[verdicts]:
            return texts[verdicts].partition(b"\n")[0], texts[output]
        if len(texts[output]) > most or len(texts[verdicts]) > VERDICT_BYTES:
            break
    return b"", texts[output]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process that set the sandbox up; all processes inside die with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(line: bytes, key: bytes, printed: bytes, seconds: float) -> Outcome:
    """Parse a line of the pipe: the signature, a space, and `[status, detail]` in JSON."""
    signature, _, message = line.partition(b" ")
    if hmac.compare_digest(signature, hmac.new(key, message, "sha256").hexdigest().encode()):
        status, detail = json.loads(message)
        if status in get_args(Status):
            return Outcome(cast(Status, status), str(detail), seconds)
    if line:
        return Outcome("error", "the sandbox's verdict has no valid signature", seconds)
    lines = printed.decode(errors="replace").strip().splitlines()
    text = " ".join(lines[-3:])[:500] or "it said nothing"
    return Outcome("error", f"the sandbox gave no verdict: {text}", seconds)
