"""The judge: what runs inside the sandbox, as process 1, from the standard library alone.

`sandbox` starts this file's code with `python -c`, so it imports nothing of ours but `candidate`
and `wire`, whose code comes along. The judge forks a child for the candidate *before* it reads what
there is to judge, gives that child the candidate's source only, and runs the tests itself. Each
call of the function under test goes to the child as JSON and comes back as plain values (`wire`).
So the candidate has neither the tests nor the judge's memory, nor the pipe the verdict is written
to, nor the key it is signed with, and no system call that reaches another process's memory or
limits: it can pass only by returning the right values.

What the candidate changes in its arguments is changed in the test as well. What cannot cross
(functions, generators, objects of other classes) ends the program as `unsupported`.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import resource
import signal
import sys
import time

from lori_core.evaluation.sandbox.candidate import (
    DETAIL_CHARACTERS,
    Link,
    LinkError,
    silence,
    start_candidate,
    text_of,
)
from lori_core.evaluation.sandbox.wire import Graph, UnsupportedError

TYPE_CHECKING = False  # importing typing would cost each program 5 ms
if TYPE_CHECKING:
    from typing import Any

TESTS = "<tests>"
PR_SET_DUMPABLE = 4


class Gone(BaseException):
    """The candidate will answer no more; not an `Exception`, so that no test catches it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Candidate:
    """The function under test, as the tests see it."""

    def __init__(self, process: int, link: Link, limits: dict[str, Any]) -> None:
        self.process = process
        self.link = link
        self.limits = limits
        self.gone: Gone | None = None
        self.flattened = ""

    def load(self, request: dict[str, Any]) -> None:
        """Have the candidate's source run; what it raised is raised here."""
        names = ("candidate", "entry_point", "filter", "limits")
        self._raise(self._ask({name: request[name] for name in names}))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        graph = Graph()
        try:
            call = {
                "args": [graph.encode(value) for value in args],
                "kwargs": {name: graph.encode(value) for name, value in kwargs.items()},
                "objects": graph.contents(),
            }
        except UnsupportedError as error:
            raise self._end("unsupported", f"a test passes a value {error}") from None
        except RecursionError:
            raise self._end("unsupported", "a test passes a value nested too deep") from None
        reply = self._ask(call)
        self.flattened = self.flattened or graph.flattened or str(reply.get("flattened", ""))
        try:
            graph.load(reply.get("objects", ()))
            value = graph.decode(reply.get("value"))
        except Exception as error:
            what = f"the program's answer is no value ({type(error).__name__})"
            raise self._end("failed", what) from None
        self._raise(reply)
        return value

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return the reply: a value, or what was raised."""
        reply = {} if self.gone else self._exchange(message)
        if "unsupported" in reply:
            self._end("unsupported", f"the program has a value {reply['unsupported']}")
        if "broken" in reply:
            self._end("error", str(reply["broken"]))
        if self.gone is not None:
            raise self.gone
        return reply

    def _raise(self, reply: dict[str, Any]) -> None:
        if "raised" not in reply:
            return
        error = rebuild(reply)
        self.gone = error if isinstance(error, Gone) else None
        raise error

    def _end(self, status: str, detail: str) -> Gone:
        self.gone = Gone(status, detail)
        return self.gone

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the reply; an empty one where there will never be any, and `gone` says why."""
        try:
            self.link.send(message)
            return dict(self.link.receive())
        except TimeoutError:
            self._end("timeout", f"no answer within {self.limits['wall_seconds']:g} s")
        except (LinkError, OSError, ValueError, TypeError, RecursionError) as error:
            self.gone = self._autopsy(error)
        return {}

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
    """Make the candidate's exception anew, of the nearest built-in class of its ancestors.

    StopIteration becomes a RuntimeError, as in a generator: in `all(map(candidate, …))` it would
    end the test's loop as if every answer had been right.
    """
    name, message = str(reply["raised"][0]), str(reply["message"])
    for ancestor in reply["raised"]:
        kind = getattr(builtins, str(ancestor), None)
        if isinstance(kind, type) and issubclass(kind, (StopIteration, StopAsyncIteration)):
            kind = RuntimeError
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(message if kind.__name__ == name else f"{name}: {message}")
            except TypeError:  # UnicodeDecodeError and others need more than a message
                continue
    return Gone("failed", f"the program raised {name}: {message}".rstrip(": "))


def describe(error: BaseException, tests: str) -> str:
    """Return the error and the line of the tests it left from."""
    lines = tests.splitlines()
    text = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
    left_from, trace = 0, error.__traceback__
    while trace is not None:  # the module traceback would cost each program 4 ms
        if trace.tb_frame.f_code.co_filename == TESTS and trace.tb_lineno <= len(lines):
            left_from = trace.tb_lineno
        trace = trace.tb_next
    return f"{text} at `{lines[left_from - 1].strip()}`" if left_from else text


def verdict(request: dict[str, Any], candidate: Candidate) -> tuple[str, str]:
    """Return status and detail: `passed` only where `check(candidate)` came back by itself."""
    namespace: dict[str, Any] = {"__name__": "tests", request["entry_point"]: candidate}
    try:
        code = compile(request["tests"], TESTS, "exec", dont_inherit=True)
        exec(code, namespace)  # noqa: S102
        check = namespace["check"]
    except Exception as error:
        return "error", f"the tests cannot be used: {describe(error, request['tests'])}"
    try:
        candidate.load(request)
        check(candidate)
    except Gone as gone:
        return gone.status, gone.detail
    except BaseException as error:
        detail = describe(error, request["tests"])
        if candidate.flattened and isinstance(error, (AttributeError, TypeError)):
            return "unsupported", f"a {candidate.flattened} lost what is its own: {detail}"
        return "failed", detail
    if candidate.gone is not None:  # a bare `except:` in the tests hid it
        return candidate.gone.status, candidate.gone.detail
    return "passed", ""


def main() -> None:
    """Read one request from standard input, write one signed verdict to the pipe it names."""
    if sys.platform.startswith("linux"):  # nobody may read this process through /proc
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to signals it does not handle
    verdicts = int(sys.argv[1])
    process, connection = start_candidate(verdicts)
    import hmac  # while the candidate's process starts

    request = json.load(sys.stdin)
    silence()  # what the tests print is nobody's
    key, limits = bytes.fromhex(request.pop("key")), request["limits"]
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"],) * 2)
    link = Link(connection, time.monotonic() + limits["wall_seconds"])
    status, detail = verdict(request, Candidate(process, link, limits))
    said = json.dumps([status, " ".join(detail.split())[:DETAIL_CHARACTERS]])
    signature = hmac.new(key, said.encode(), "sha256").hexdigest()
    os.write(verdicts, f"{signature} {said}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
