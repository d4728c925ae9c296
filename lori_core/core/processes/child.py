"""Run a process that does not outlive its parent (Linux).

`python -m lori_core.core.processes.child MODULE ARGUMENTS…` runs a module that way.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1

#: The parent's process id, to detect a parent that died before `die_with_parent` was called.
PARENT_VARIABLE = "LORI_PARENT_PID"


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends.

    The leader of a process group kills its whole group, including processes started through a
    shell. If the parent died before this call, no signal is sent; so this process ends at once if
    its parent is not the one in `LORI_PARENT_PID`. Call this in the main thread. It does nothing
    on other systems than Linux.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if not sys.platform.startswith("linux"):
        return
    expected = int(parent) if parent else os.getppid()
    is_leader = os.getpgrp() == os.getpid()
    if is_leader:
        # Not SIGTERM, which users send to end the process in order.
        signal.signal(signal.SIGUSR1, lambda number, frame: os.killpg(0, signal.SIGKILL))
    death_signal = signal.SIGUSR1 if is_leader else signal.SIGKILL
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
