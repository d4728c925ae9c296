"""The candidate's side of the sandbox: the process that the untrusted source runs in.

`sandbox` takes this module's code along with the judge's: the standard library alone, and `wire`.
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
    """The other side closed the connection, or sent what is no message."""


class Link:
    """Messages in JSON, each after its length, over one socket; `deadline` ends every wait."""

    def __init__(self, connection: socket.socket, deadline: float | None = None) -> None:
        self.connection = connection
        self.deadline = deadline

    def _wait(self) -> None:
        if self.deadline is not None:
            self.connection.settimeout(max(self.deadline - time.monotonic(), 1e-3))

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        self._wait()
        self.connection.sendall(len(data).to_bytes(8, "big") + data)

    def receive(self) -> Any:
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
    """The sandbox is not as it should be, and nothing may run in it."""


def restrict(limits: dict[str, Any]) -> None:
    """Set the limits of the candidate's process and of all that it starts, for good."""
    cpu = int(limits["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # a warning first, then the end
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
    """Let the kernel filter this process's system calls, and those of all it starts, for good."""
    program = Filter(len(code) // 8, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    if prctl(PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) or prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0
    ):
        why = os.strerror(ctypes.get_errno())
        raise ConfinementError(f"the kernel takes no filter of system calls (seccomp): {why}")


def text_of(value: object) -> str:
    """Return `str(value)`, or what kind of value it is that has none."""
    try:
        return str(value)[:DETAIL_CHARACTERS]
    except BaseException as error:
        return f"(a message that cannot be shown: {type(error).__name__})"


def attempt(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the message `action` made, or one of what it raised."""
    try:
        return action()
    except BaseException as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return {"raised": names, "message": text_of(error)}


def load(source: str, entry_point: str) -> Callable[..., Any]:
    """Run the candidate's source as a module and return the function under test."""
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module  # dataclasses look their module up
    code = compile(source, "<candidate>", "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102
    if not callable(module.__dict__.get(entry_point)):
        raise NameError(f"the program does not define {entry_point!r}")
    return module.__dict__[entry_point]  # type: ignore[no-any-return]


def answer(function: Callable[..., Any], call: dict[str, Any]) -> dict[str, Any]:
    """Call the function; return its value or what it raised, and what became of the objects."""
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
    """Answer calls until the judge goes away."""
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
        functions.append(load(request["candidate"], request["entry_point"]))
        return {}

    link.send(attempt(start))
    while True:
        call = link.receive()
        link.send(attempt(lambda: answer(functions[0], call)))  # noqa: B023


def start_candidate(verdicts: int) -> tuple[int, socket.socket]:
    """Fork the process the candidate will run in; it keeps nothing but its end of the link."""
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
    """Make standard input, output and error nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.close(nothing)
