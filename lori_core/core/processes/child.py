"""A process that does not outlive the one that started it (Linux).

`python -m lori_core.core.processes.child MODULE ARGUMENTS…` runs a module that way.
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
    """Ask the kernel to end this process when the thread that started it ends.

    The leader of a process group takes its whole group along, so that nothing it started through a
    shell is left. Had the starter died before this call, no signal would ever come: if it said who
    it is in `LORI_PARENT_PID`, this process then ends at once. Does nothing but on Linux.
    Call it in the main thread.
    """
    named = os.environ.pop(PARENT_VARIABLE, None)
    if not sys.platform.startswith("linux"):
        return
    expected = int(named) if named else os.getppid()
    leads = os.getpgrp() == os.getpid()
    if leads:
        # Not SIGTERM: that one asks the group to end in order, and comes from people.
        signal.signal(signal.SIGUSR1, lambda number, frame: os.killpg(0, signal.SIGKILL))
    sent = signal.SIGUSR1 if leads else signal.SIGKILL
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, sent, 0, 0, 0)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
