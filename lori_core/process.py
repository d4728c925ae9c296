"""A process that does not outlive the one that started it (Linux).

`python -m lori_core.process MODULE ARGUMENTS…` runs a module that way.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1

#: The starter's process id, so that one that died too early to be noticed is noticed.
PARENT_VARIABLE = "LORI_PARENT_PID"


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends.

    Had the starter died before this call, no signal would ever come: if it said who it is in
    `LORI_PARENT_PID`, this process then ends at once. Does nothing but on Linux.
    """
    named = os.environ.pop(PARENT_VARIABLE, None)
    if not sys.platform.startswith("linux"):
        return
    expected = int(named) if named else os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
