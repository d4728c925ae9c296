"""What each fork of the fork server does: start the requested command, and watch it.

The fork is a warden process. It forks the command's process, passes the client's signals on to it,
and sends its exit code to the client. When the client dies, the warden sees the connection close
and kills the command.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import resource
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from lori_core.core.processes import forked
from lori_core.core.processes.child import PARENT_VARIABLE, die_with_parent
from lori_core.core.processes.forked import LIMITS, receive, send


def run(connection: socket.socket, request: dict[str, Any], streams: list[int]) -> NoReturn:
    """Start the command, pass signals on to it, and send its exit code; end this process.

    Args:
        connection: the connection to the client.
        request: the client's request (`lori_core.core.processes.forked`).
        streams: the file descriptors of the command's standard input, output and error.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    warden = os.getpid()
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request, streams, warden)
    for stream in [*streams, 0, 1, 2]:
        os.close(stream)
    with contextlib.suppress(OSError):  # the loop below sees that the client has gone
        send(connection, {"process": child})
    ended = os.pidfd_open(child)
    gone = False
    while not gone:
        ready, _, _ = select.select([ended, connection.fileno()], [], [])
        gone = ended in ready or not _passed_on(connection, child)
    # Also kills processes that the command left running in its session.
    _signal(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        send(connection, {"code": os.waitstatus_to_exitcode(status)})
    os._exit(0)


def _passed_on(connection: socket.socket, child: int) -> bool:
    """Pass one signal from the client on; return False if the client has gone."""
    try:
        message, _ = receive(connection)
    except OSError:
        return False
    if message is None:
        return False
    _signal(child, message["signal"])
    return True


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _become(request: Mapping[str, Any], streams: list[int], warden: int) -> NoReturn:
    """Turn this fork into the requested process, run its module and exit with its code."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    with contextlib.suppress(PermissionError):
        os.nice(request["nice"] - os.nice(0))
    for name in LIMITS:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), tuple(request["limits"][name]))
    os.environ.clear()
    os.environ.update(request["environment"] | {PARENT_VARIABLE: str(warden)})
    die_with_parent()
    forked.inside = True
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _written(1, "strict"), _written(2, "backslashreplace")
    sys.argv = [request["module"], *request["arguments"]]
    code = 1
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = _code(end)
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _written(number: int, errors: str) -> io.TextIOWrapper:
    raw = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)


def _code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _leave(code: int) -> NoReturn:
    """End as an interpreter does: wait for threads, then run the `atexit` functions."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)
