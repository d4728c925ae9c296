"""Run a small program on untrusted data in a process with limits of time and memory.

The time of matching a regular expression or rendering a chat template from a file cannot be
bounded beforehand, so this project first tries it in a limited process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

#: The most seconds of CPU time of a program.
CPU_SECONDS = 1
#: The most seconds of wall-clock time; on a busy machine the CPU time limit is reached late.
SECONDS = 60
#: The most bytes of address space; the interpreter with its imports takes about 40 MB.
MEMORY = 400 << 20

_LIMITS = f"""
import json, resource, sys
for kind, most in ((resource.RLIMIT_CPU, {CPU_SECONDS}), (resource.RLIMIT_AS, {MEMORY})):
    try:
        resource.setrlimit(kind, (most, most))
    except ValueError:  # the limit that is there is lower, or the system has none of this kind
        pass
data = json.load(sys.stdin)
"""


class BeyondLimitsError(Exception):
    """A program exceeded its limit of time or memory; the message says which."""


def run(program: str, data: Any, *, packages: bool = False) -> Any:
    """Run a Python program in a process of its own, with limits of time and memory.

    Args:
        program: trusted Python source that reads the variable `data` and prints its result as
            JSON; `json` and `sys` are imported.
        data: the untrusted data, a JSON value.
        packages: whether the program imports installed packages.

    Returns:
        The JSON value that the program printed.

    Raises:
        BeyondLimitsError: the program exceeded its time or memory.
    """
    flags = ["-I", "-B"] if packages else ["-I", "-B", "-S"]
    try:
        process = subprocess.run(
            [sys.executable, *flags, "-c", _LIMITS + program],
            input=json.dumps(data).encode(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BeyondLimitsError(f"it takes more than {SECONDS} s") from None
    if process.returncode == 0:
        return json.loads(process.stdout)
    if process.returncode < 0:
        raise BeyondLimitsError(f"it takes more than {CPU_SECONDS} s of processor time")
    if b"MemoryError" in process.stderr or b"RecursionError" in process.stderr:
        raise BeyondLimitsError(f"it takes more than {MEMORY >> 20} MB of memory")
    raise RuntimeError(process.stderr.decode(errors="replace")[-2000:])
