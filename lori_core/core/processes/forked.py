"""Running a command in a process that is forked from one that has imported everything already.

`python -m lori_core.core.processes.forked MODULE ARGUMENTS…` runs a module so, and `handed_over`
the command of this process, where a fork server (`flows.execution.fork_server`) is named in
`LORI_FORK_SERVER`.
The forked process has this one's arguments, folder, environment, limits and open streams; signals
that this process gets are passed on, and it ends with the other's exit code. Where there is no
server, or it cannot take the command, the command runs in this process as ever.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

#: The server's socket.
VARIABLE = "LORI_FORK_SERVER"
#: Variables, and beginnings of such, that nothing reads while it is imported. All others must be
#: equal here and in the server, whose libraries have read them.
LATE = {"CUDA_VISIBLE_DEVICES", "OLDPWD", "PWD", "SHLVL", "_"}
LATE_PREFIXES = ("DVC_", "LORI_", "MLFLOW_", "PREFECT_")
#: Signals that are passed on.
PASSED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
LENGTH = struct.Struct("!I")
LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
CONNECT_SECONDS = 5.0
#: Whether this process was forked from a server: what it is asked for runs in it.
inside = False


def early(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that decide how libraries are imported."""
    return {
        name: value
        for name, value in environment.items()
        if name not in LATE and not name.startswith(LATE_PREFIXES)
    }


def send(
    connection: socket.socket, message: Mapping[str, Any], streams: Sequence[int] = ()
) -> None:
    """Send a message, and open files with it."""
    content = json.dumps(message).encode()
    socket.send_fds(connection, [LENGTH.pack(len(content))], list(streams))
    connection.sendall(content)


def receive(connection: socket.socket, streams: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message with its open files; None where the other side is gone."""
    head, found, _, _ = socket.recv_fds(connection, LENGTH.size, streams)
    size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            return None, found
        content += part
    return (json.loads(content) if content else None), found


def handed_over(module: str, arguments: Sequence[str]) -> int | None:
    """Run a module in a forked process and return its exit code; None where it must run here.

    Args:
        module: what `python -m` would run.
        arguments: of the command.
    """
    path = os.environ.get(VARIABLE)
    if not path or inside:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(path)
            send(connection, _request(module, arguments), (0, 1, 2))
            answer, _ = receive(connection)
        except (OSError, ValueError):
            return None
        if answer is None or "refused" in answer:
            return None
        connection.settimeout(None)
        return _followed(connection)


def _request(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    umask = os.umask(0)
    os.umask(umask)
    return {
        "module": module,
        "arguments": list(arguments),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "interpreter": interpreter(),
        "umask": umask,
        "nice": os.nice(0),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
    }


def interpreter() -> list[Any]:
    """Return what must be the same in both processes besides the environment."""
    return [
        sys.executable,
        sys.version,
        str(Path(__file__).resolve()),
        sorted(os.sched_getaffinity(0)),
    ]


def _followed(connection: socket.socket) -> int:
    """Pass signals on until the forked process has ended; return its exit code, or end likewise."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        send(connection, {"signal": number})

    before = {number: signal.signal(number, pass_on) for number in PASSED}
    answer, _ = receive(connection)
    for number, handler in before.items():
        signal.signal(number, handler)
    code = 1 if answer is None else int(answer["code"])
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def main() -> None:
    """Run the module that the command line names."""
    from lori_core.core.processes.child import die_with_parent

    die_with_parent()
    del sys.argv[0]
    code = handed_over(sys.argv[0], sys.argv[1:])
    if code is not None:
        sys.exit(code)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
