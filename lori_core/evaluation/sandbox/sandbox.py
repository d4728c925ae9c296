"""Running a generated program against its tests, so that it can neither do harm nor cheat.

A program gets an interpreter and nothing of the host's (`isolation` says how), limits on all it can
use up, the system calls that Python needs (`system_calls`), and a judge (`judge`) that holds the
tests in another process and asks it for answers. The verdict comes through a pipe that only the
judge has, signed with a key that only the judge is given; whatever else arrives, or nothing, is an
error. What is printed has another pipe, and counts for nothing.

What is left to trust: the kernel (a hole in its namespaces is a way out), and the tests, which run
in the judge. Memory is limited for each process, and for all of them together where this user has
control groups (`control_group`); elsewhere a program may use `processes` times as much. While it
lives it can also keep `processes` processors busy. The machine's load can make a slow program miss
`wall_seconds`. With `unsafe`, a program is a plain process of the user's: it can read
and write all the user can, and by leaving its session outlive its time.
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

#: A verdict's length at most, in bytes.
VERDICT_BYTES = 64 << 10
#: The processes that make a sandbox, outside it.
MAKERS = 4
#: Time to start and end a sandbox, on top of the program's own.
GRACE_SECONDS = 5.0
REFUSAL = (
    "generated code is not run without isolation, and this machine offers none: "
    "apt-get install bubblewrap (or allow user namespaces; in a container, infra/seccomp.json); "
    "both need a kernel with seccomp, on x86_64 or aarch64; "
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
    """What one program may use up. CPU time, memory and file size count for each process; where
    there are control groups, all processes together have twice the memory, the judge among them."""

    wall_seconds: float = 5.0
    cpu_seconds: int = 4
    memory_bytes: int = 512 << 20
    processes: int = 16
    """Processes and threads together, three of which are the sandbox's own."""
    file_bytes: int = 1 << 20
    output_bytes: int = 64 << 10
    """What a sandbox that gives no verdict may print at most; what tests print is thrown away."""


@dataclass(frozen=True)
class Outcome:
    """How a program did.

    Attributes:
        status: `passed`; `failed`, a test or the program did; `timeout`, wall or processor time;
            `unsupported`, a value cannot go between the tests and the program, so neither right
            nor wrong; `error`, the sandbox or the tests are broken; `refused`, there is no
            isolation. All but the first count as not passed.
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


def why_not(isolation: Isolation) -> str:
    """Return why a trivial program does not run isolated in this way; empty where it does."""
    return "" if works(isolation) else _run(TRIVIAL, DEFAULT, isolation).detail


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


#: What runs in the sandbox: the judge, behind the modules of ours that it imports.
PARTS = ("wire", "candidate", "test_runner")
#: Runs them, compiled: the sandbox's interpreter is ours, and each program costs milliseconds.
BOOT = """
import binascii, marshal, sys, types
*parts, judge = marshal.loads(binascii.a2b_base64({code!r}))
for part in parts:
    sys.modules[part.co_filename] = module = types.ModuleType(part.co_filename)
    exec(part, module.__dict__)
exec(judge)
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
    """Return the filter of system calls in hexadecimal digits; without isolation, if there is one.

    Raises:
        OSError: there is none for this machine.
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
            control_group.limited(*_together(limits)) as group,
            _start(program, limits, isolation, key, theirs, group) as process,
        ):
            os.close(theirs)
            theirs = -1
            try:
                line, printed = _read(process, verdicts, deadline, limits.output_bytes)
            finally:
                _kill(process)
            used_up = group is not None and group.out_of_memory
    except OSError as error:
        return Outcome("error", f"the sandbox cannot start: {error}", 0.0)
    finally:
        os.close(verdicts)
        if theirs >= 0:
            os.close(theirs)
    seconds = time.monotonic() - started
    if line is None:
        return Outcome("timeout", f"no verdict within {limits.wall_seconds:g} s", seconds)
    if not line and used_up:
        most = _together(limits)[0] >> 20
        return Outcome("failed", f"more than {most} MB of memory, all processes together", seconds)
    return _outcome(line, key, printed, seconds)


def _together(limits: Limits) -> tuple[int, int]:
    """Return the bytes and processes of all of a sandbox: the program's, the judge's, its maker's.

    The judge may have as much memory as a process of the program, and `/tmp` lies in memory.
    """
    return 2 * limits.memory_bytes + ways.TMP_BYTES, limits.processes + MAKERS


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
    # In a file without a name: never on a command line, and no writer that could block.
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
    """Return the first line of the pipe for verdicts, and what was printed until it came.

    The line is empty where the pipe closes without one, and where more than `most` bytes are
    printed; it is None when `deadline` came first.
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
    """Kill the sandbox's maker; process 1 of the sandbox, and so all inside, die with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(line: bytes, key: bytes, printed: bytes, seconds: float) -> Outcome:
    """Read a verdict: `[status, detail]` in JSON, behind its signature."""
    signature, _, said = line.partition(b" ")
    if hmac.compare_digest(signature, hmac.new(key, said, "sha256").hexdigest().encode()):
        status, detail = json.loads(said)
        if status in get_args(Status):
            return Outcome(cast(Status, status), str(detail), seconds)
    if line:
        return Outcome("error", "the sandbox's verdict is not the judge's own", seconds)
    lines = printed.decode(errors="replace").strip().splitlines()
    text = " ".join(lines[-3:])[:500] or "it said nothing"
    return Outcome("error", f"the sandbox gave no verdict: {text}", seconds)
