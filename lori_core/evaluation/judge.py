"""The judge: what runs inside the sandbox, as process 1, from the standard library alone.

`sandbox` starts this file's text with `python -c`, so it imports nothing of ours. The judge forks
a child for the candidate *before* it reads what there is to judge, gives that child the
candidate's source only, and runs the tests itself. Each call of the function under test goes to
the child as JSON and comes back as plain values (None, bool, int, float, complex, str, bytes, list,
tuple, set, frozenset, dict). So the candidate has neither the tests nor the judge's memory nor the
descriptor the verdict is written to: it can pass only by returning the right values.

A list, dict or set that the candidate changes in place is changed in the test as well. What cannot
cross is refused: functions, generators, and objects of other classes.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

MESSAGE_BYTES = 16 << 20
OPEN_FILES = 64
DETAIL_CHARACTERS = 500
TESTS = "<tests>"
PR_SET_DUMPABLE = 4


class Gone(BaseException):
    """The candidate will answer no more; not an `Exception`, so that no test catches it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class LinkError(Exception):
    """The other side closed the connection, or sent what is no message."""


def encode(value: Any) -> Any:
    """Return `value` as JSON; subclasses (an IntEnum, a Counter) become their plain base type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):  # JSON's decimal digits are limited to 4300 by Python
        return int(value) if abs(value) < 1 << 63 else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    for name, kind in (("tuple", tuple), ("set", set), ("frozenset", frozenset)):
        if isinstance(value, kind):
            return {name: [encode(item) for item in value]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise TypeError(f"a value of type {type(value).__name__} cannot leave the sandboxed program")


DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: int(value, 16),
    "dict": lambda value: {decode(key): decode(item) for key, item in value},
    "tuple": lambda value: tuple(decode(item) for item in value),
    "set": lambda value: {decode(item) for item in value},
    "frozenset": lambda value: frozenset(decode(item) for item in value),
    "bytes": bytes.fromhex,
    "complex": lambda value: complex(*value),
}


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        return DECODERS[kind](inner)
    return value


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


# ------------------------------------------------------------------ the candidate's process


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


def attempt(action: Callable[[], Any]) -> dict[str, Any]:
    """Return what `action` returned or raised, as a message."""
    try:
        return {"value": action()}
    except BaseException as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return {"raised": names, "message": str(error)[:DETAIL_CHARACTERS]}


def load(source: str, entry_point: str) -> Callable[..., Any]:
    """Run the candidate's source as a module and return the function under test."""
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module  # dataclasses look their module up
    exec(compile(source, "<candidate>", "exec"), module.__dict__)  # noqa: S102
    if not callable(module.__dict__.get(entry_point)):
        raise NameError(f"the program does not define {entry_point!r}")
    return module.__dict__[entry_point]  # type: ignore[no-any-return]


def serve(link: Link) -> None:
    """Answer calls until the judge goes away."""
    request = link.receive()
    restrict(request["limits"])
    function: list[Callable[..., Any]] = []
    link.send(attempt(lambda: function.append(load(request["candidate"], request["entry_point"]))))
    while True:
        message = link.receive()
        args, kwargs = decode(message["args"]), decode(message["kwargs"])
        reply = attempt(lambda: encode(function[0](*args, **kwargs)))  # noqa: B023
        after = attempt(lambda: encode(args)).get("value")  # noqa: B023
        if after != message["args"]:
            reply["args"] = after
        link.send(reply)


def start_candidate() -> tuple[int, socket.socket]:
    """Fork the process the candidate will run in; it keeps nothing but its end of the link."""
    ours, theirs = socket.socketpair()
    process = os.fork()
    if process:
        theirs.close()
        return process, ours
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, 1024)
        serve(Link(theirs))
    finally:
        os._exit(1)


# ------------------------------------------------------------------ the judge's process


class Candidate:
    """The function under test, as the tests see it."""

    def __init__(self, process: int, link: Link, limits: dict[str, Any]) -> None:
        self.process = process
        self.link = link
        self.limits = limits
        self.gone: Gone | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sent = {"args": encode(list(args)), "kwargs": encode(kwargs)}
        reply = self.ask(sent)
        for mine, theirs in zip(args, decode(reply.get("args") or []), strict=False):
            copy_change(mine, theirs)
        return decode(reply["value"])

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return the reply; what the candidate raised is raised here."""
        if self.gone is not None:
            raise self.gone
        reply = self._exchange(message)
        if reply is not None and "raised" in reply:
            error = rebuild(reply)
            self.gone = error if isinstance(error, Gone) else None
            raise error
        if reply is None:
            assert self.gone is not None  # noqa: S101
            raise self.gone
        return reply

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return the reply; None where there will never be one, and `gone` says why."""
        try:
            self.link.send(message)
            return dict(self.link.receive())
        except TimeoutError:
            self.gone = Gone("timeout", f"no answer within {self.limits['wall_seconds']:g} s")
        except (LinkError, OSError, ValueError, TypeError, RecursionError) as error:
            self.gone = self._autopsy(error)
        return None

    def _autopsy(self, error: Exception) -> Gone:
        """Say how the candidate's process ended; one that only closed the link is killed."""
        os.kill(self.process, signal.SIGKILL)
        _, status, usage = os.wait4(self.process, 0)
        signalled = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        if signalled or usage.ru_utime + usage.ru_stime >= self.limits["cpu_seconds"]:
            return Gone("timeout", f"more than {self.limits['cpu_seconds']} s of processor time")
        if os.WIFEXITED(status):
            return Gone("failed", f"the program ended itself (code {os.WEXITSTATUS(status)})")
        return Gone("failed", f"the program died (signal {os.WTERMSIG(status)}; {error})")


def rebuild(reply: dict[str, Any]) -> BaseException:
    """Make the candidate's exception anew, of the nearest built-in class of its ancestors."""
    name, message = str(reply["raised"][0]), str(reply["message"])
    for ancestor in reply["raised"]:
        kind = getattr(builtins, str(ancestor), None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(message if kind.__name__ == name else f"{name}: {message}")
            except TypeError:  # UnicodeDecodeError and others need more than a message
                continue
    return Gone("failed", f"the program raised {name}: {message}".rstrip(": "))


def copy_change(mine: Any, theirs: Any) -> None:
    """Make an argument what the candidate made of it."""
    if isinstance(mine, list) and isinstance(theirs, list):
        mine[:] = theirs
    elif isinstance(mine, (dict, set)) and type(mine) is type(theirs):
        mine.clear()
        mine.update(theirs)


def describe(error: BaseException, tests: str) -> str:
    """Return the error and the line of the tests it left from."""
    lines = tests.splitlines()
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_code.co_filename == TESTS and number <= len(lines):
            return f"{text} at `{lines[number - 1].strip()}`"
    return text


def verdict(request: dict[str, str], candidate: Candidate) -> tuple[str, str]:
    """Return status and detail: `passed` only where `check(candidate)` came back by itself."""
    namespace: dict[str, Any] = {"__name__": "tests", request["entry_point"]: candidate}
    try:
        exec(compile(request["tests"], TESTS, "exec"), namespace)  # noqa: S102
        check = namespace["check"]
    except Exception as error:
        return "error", f"the tests cannot be used: {describe(error, request['tests'])}"
    try:
        candidate.ask(
            {name: request[name] for name in ("candidate", "entry_point")}
            | {"limits": candidate.limits}
        )
        check(candidate)
    except Gone as gone:
        return gone.status, gone.detail
    except BaseException as error:
        return "failed", describe(error, request["tests"])
    if candidate.gone is not None:  # a bare `except:` in the tests hid it
        return candidate.gone.status, candidate.gone.detail
    return "passed", ""


def main() -> None:
    """Read one request from standard input, write one verdict to standard output."""
    if sys.platform.startswith("linux"):  # nobody may read this process through /proc
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to signals it does not handle
    process, connection = start_candidate()
    request = json.load(sys.stdin)
    limits = request["limits"]
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"],) * 2)
    link = Link(connection, time.monotonic() + limits["wall_seconds"])
    status, detail = verdict(request, Candidate(process, link, limits))
    print(json.dumps({"status": status, "detail": detail[:DETAIL_CHARACTERS]}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
