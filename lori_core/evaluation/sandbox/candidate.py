"""The process of the sandbox in which the untrusted program runs.

`sandbox` sends this module's code into the sandbox together with the test runner's, so it imports
only the standard library and `wire`.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys
import time
import types
from collections.abc import Callable

from lori_core.evaluation.sandbox.wire import Graph, UnsupportedError

TYPE_CHECKING = False  # importing typing would cost each program 5 ms
if TYPE_CHECKING:
    from typing import Any

MESSAGE_BYTES = 16 << 20
OPEN_FILES = 64
DETAIL_CHARACTERS = 500
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2


class LinkError(Exception):
    """The other process closed the connection, or sent an invalid message."""


class Link:
    """JSON messages over a socket, each preceded by its length (8 bytes, big-endian).

    Args:
        connection: the socket.
        deadline: the time (`time.monotonic`) at which waiting ends with a TimeoutError; None for
            no limit.
    """

    def __init__(self, connection: socket.socket, deadline: float | None = None) -> None:
        self.connection = connection
        self.deadline = deadline

    def _wait(self) -> None:
        if self.deadline is not None:
            self.connection.settimeout(max(self.deadline - time.monotonic(), 1e-3))

    def send(self, message: Any) -> None:
        """Send a message."""
        data = json.dumps(message).encode()
        self._wait()
        self.connection.sendall(len(data).to_bytes(8, "big") + data)

    def receive(self) -> Any:
        """Wait for a message and return it.

        Raises:
            LinkError: the connection is closed, or the message exceeds `MESSAGE_BYTES`.
            TimeoutError: the deadline is reached.
        """
        size = int.from_bytes(self._exactly(8), "big")
        if size > MESSAGE_BYTES:
            raise LinkError(f"an answer of {size} bytes is more than {MESSAGE_BYTES}")
        return json.loads(self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait()
            part = self.connection.recv(min(size - len(data), 1 << 20))
            if not part:
                raise LinkError("closed")
            data += part
        return bytes(data)


class ConfinementError(Exception):
    """The sandbox cannot be set up as required, so no program may run in it."""


def restrict(limits: dict[str, Any]) -> None:
    """Set the resource limits of this process and of all that it starts; they cannot be raised."""
    cpu = int(limits["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # SIGXCPU, a second later SIGKILL
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


class Filter(ctypes.Structure):
    """The kernel's struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def confine(code: bytes) -> None:
    """Install a seccomp filter for this process and all that it starts; it cannot be removed.

    Args:
        code: the filter, as `system_calls.program` returns it.

    Raises:
        ConfinementError: the kernel does not accept the filter.
    """
    program = Filter(len(code) // 8, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    if prctl(PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) or prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0
    ):
        why = os.strerror(ctypes.get_errno())
        raise ConfinementError(f"the kernel takes no filter of system calls (seccomp): {why}")


def text_of(value: object) -> str:
    """Return `str(value)`, shortened; or the error's type if `str` fails."""
    try:
        return str(value)[:DETAIL_CHARACTERS]
    except BaseException as error:
        return f"(a message that cannot be shown: {type(error).__name__})"


def attempt(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the message of `action`, or a message about the exception that it raised."""
    try:
        return action()
    except BaseException as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return {"raised": names, "message": text_of(error)}


def load(source: str, entry_point: str) -> Callable[..., Any]:
    """Run the program's source as a module and return the function under test.

    Raises:
        NameError: the source does not define the function.
    """
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module  # dataclasses look up their module
    code = compile(source, "<candidate>", "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102
    if not callable(module.__dict__.get(entry_point)):
        raise NameError(f"the program does not define {entry_point!r}")
    return module.__dict__[entry_point]  # type: ignore[no-any-return]


def answer(function: Callable[..., Any], call: dict[str, Any]) -> dict[str, Any]:
    """Call the function; return its value or exception, and the objects that it changed."""
    graph = Graph()
    graph.load(enumerate(call["objects"]))
    args = [graph.decode(form) for form in call["args"]]
    kwargs = {name: graph.decode(form) for name, form in call["kwargs"].items()}
    returned = []

    def run() -> dict[str, Any]:
        returned.append(function(*args, **kwargs))
        return {}

    reply = attempt(run)
    try:
        if returned:
            reply["value"] = graph.encode(returned[0])
        contents = graph.contents()
    except UnsupportedError as error:
        return {"unsupported": str(error)}
    except RecursionError:
        return {"unsupported": "nested too deep"}
    before = [json.dumps(content) for content in call["objects"]]
    changed = [
        (number, content)
        for number, content in enumerate(contents)
        if number >= len(before) or json.dumps(content) != before[number]
    ]
    return {**reply, "objects": changed, "flattened": graph.flattened}


def serve(link: Link) -> None:
    """Answer the test runner's calls until it closes the connection."""
    request = link.receive()
    try:
        restrict(request["limits"])
        if request["filter"]:
            confine(bytes.fromhex(request["filter"]))
    except (ConfinementError, OSError, ValueError) as error:
        link.send({"broken": str(error)})
        return
    functions: list[Callable[..., Any]] = []

    def start() -> dict[str, Any]:
        functions.append(load(request["source"], request["entry_point"]))
        return {}

    link.send(attempt(start))
    while True:
        call = link.receive()
        link.send(attempt(lambda: answer(functions[0], call)))  # noqa: B023


def start_program(verdicts: int) -> tuple[int, socket.socket]:
    """Fork the process in which the program runs; it inherits only its end of the link.

    Args:
        verdicts: the file descriptor to close in the new process.

    Returns:
        The new process's id, and the test runner's end of the link.
    """
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process:
        theirs.close()
        return process, ours
    try:
        silence()
        os.close(verdicts)
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, 1024)
        serve(Link(theirs))
    finally:
        os._exit(1)


def silence() -> None:
    """Redirect standard input, output and error to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)
