"""Running a small program on data from elsewhere, with limits of time and memory.

Some things that a file can ask for have no end that could be known beforehand: a regular
expression's match, a chat template. They are tried in a process of their own first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

#: Seconds of processor time that a program may take.
CPU_SECONDS = 1
#: Seconds after which it is stopped, however little of them it had the processor: where the machine
#: is that busy, the limit above comes late.
SECONDS = 60
#: Address space that it may have, bytes; an interpreter with what it imports takes about 40 MB.
MEMORY = 400 << 20

_LIMITS = f"""
import json, resource, sys
for kind, most in ((resource.RLIMIT_CPU, {CPU_SECONDS}), (resource.RLIMIT_AS, {MEMORY})):
    try:
        resource.setrlimit(kind, (most, most))
    except ValueError:  # the limit that is there is lower, or the system has none of this kind
        pass
given = json.load(sys.stdin)
"""


class BeyondLimitsError(Exception):
    """A program took more time or memory than it may have; the message says so."""


def run(program: str, given: Any, *, packages: bool = False) -> Any:
    """Run a Python program in a process of its own, with limits of time and memory.

    Args:
        program: Python source, which finds `given`, and `json` and `sys` imported; it must print
            its result as JSON. It is part of this project: only `given` comes from elsewhere.
        given: what JSON can hold.
        packages: whether it imports installed packages.

    Returns:
        What it printed.

    Raises:
        BeyondLimitsError: it took too long, or too much memory.
    """
    flags = ["-I", "-B"] if packages else ["-I", "-B", "-S"]
    try:
        done = subprocess.run(
            [sys.executable, *flags, "-c", _LIMITS + program],
            input=json.dumps(given).encode(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BeyondLimitsError(f"it takes more than {SECONDS} s") from None
    if done.returncode == 0:
        return json.loads(done.stdout)
    if done.returncode < 0:
        raise BeyondLimitsError(f"it takes more than {CPU_SECONDS} s of processor time")
    if b"MemoryError" in done.stderr or b"RecursionError" in done.stderr:
        raise BeyondLimitsError(f"it takes more than {MEMORY >> 20} MB of memory")
    raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
