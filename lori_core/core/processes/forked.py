"""Run a module in a process forked from a server that has already imported the libraries.

`LORI_FORK_SERVER` names the socket of the server (`flows.execution.fork_server`).
`python -m lori_core.core.processes.forked MODULE ARGUMENTS…` runs a module there from the command
line, and `run_in_fork_server` from Python.

The forked process has this process's arguments, working directory, environment, resource limits
and standard streams. This process forwards signals to it and ends with its exit code. Without a
server, or if the server refuses, the module runs in this process.
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

#: The environment variable with the path of the server's socket.
VARIABLE = "LORI_FORK_SERVER"
#: Names, and prefixes of names, of variables that no library reads at import. All other variables
#: must be equal here and in the server, whose libraries have read them.
NOT_READ_AT_IMPORT = {"CUDA_VISIBLE_DEVICES", "OLDPWD", "PWD", "SHLVL", "_"}
NOT_READ_PREFIXES = ("DVC_", "LORI_", "MLFLOW_", "PREFECT_")
#: Signals that this process forwards to the forked one.
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
LENGTH = struct.Struct("!I")
LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
CONNECT_SECONDS = 5.0
#: How long a client waits for the server's answer. The server listens before it imports, because
#: waiting for its imports takes less time than importing the same libraries once more.
ANSWER_SECONDS = 120.0
#: Whether this process was forked from a server; then modules run in this process.
inside = False


def import_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that libraries may read at import."""
    return {
        name: value
        for name, value in environment.items()
        if name not in NOT_READ_AT_IMPORT and not name.startswith(NOT_READ_PREFIXES)
    }


def send(
    connection: socket.socket, message: Mapping[str, Any], streams: Sequence[int] = ()
) -> None:
    """Send a JSON message with its length, and file descriptors with it."""
    content = json.dumps(message).encode()
    socket.send_fds(connection, [LENGTH.pack(len(content))], list(streams))
    connection.sendall(content)


def receive(connection: socket.socket, streams: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message, None at the end of the connection, and its file descriptors."""
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, streams)
    size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            return None, descriptors
        content += part
    return (json.loads(content) if content else None), descriptors


def run_in_fork_server(module: str, arguments: Sequence[str]) -> int | None:
    """Run a module in a forked process and return its exit code; None if it must run here.

    Args:
        module: the module's name, as for `python -m`.
        arguments: its command-line arguments.
    """
    path = os.environ.get(VARIABLE)
    if not path or inside:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(path)
            send(connection, _request(module, arguments), (0, 1, 2))
            connection.settimeout(ANSWER_SECONDS)
            answer, _ = receive(connection)
        except (OSError, ValueError):
            return None
        if answer is None or "refused" in answer:
            return None
        connection.settimeout(None)
        return _wait_for_exit(connection)


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
    """Return the properties, besides the environment, that must be equal in both processes."""
    return [
        sys.executable,
        sys.version,
        str(Path(__file__).resolve()),
        sorted(os.sched_getaffinity(0)),
    ]


def _wait_for_exit(connection: socket.socket) -> int:
    """Forward signals until the forked process ends; return its exit code, or die of its signal."""

    def forward(number: int, frame: FrameType | None) -> None:
        send(connection, {"signal": number})

    before = {number: signal.signal(number, forward) for number in FORWARDED}
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
    code = run_in_fork_server(sys.argv[0], sys.argv[1:])
    if code is not None:
        sys.exit(code)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
