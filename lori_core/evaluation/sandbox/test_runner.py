"""The test runner, which is process 1 of the sandbox.

`sandbox` starts this file's code with `python -c`, so it imports only the standard library,
`candidate` and `wire`, whose code is sent along. The test runner forks a child for the program
*before* it reads its request, gives the child the program's source only, and runs the tests
itself. Each call of the function under test is sent to the child as JSON, and its result comes
back as plain values (`wire`). The program has no access to the tests, to the test runner's memory,
to the pipe for the outcome or to the key that signs it, and may not use system calls that reach
another process's memory or limits. It can pass only by returning the right values.

If the program changes its arguments, they change in the test as well. A value that cannot be
passed (a function, a generator, an object of another class) ends the program as `unsupported`.
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
    start_program,
    text_of,
)
from lori_core.evaluation.sandbox.wire import Graph, UnsupportedError

TYPE_CHECKING = False  # importing typing would cost each program 5 ms
if TYPE_CHECKING:
    from typing import Any

TESTS = "<tests>"
PR_SET_DUMPABLE = 4


class ProgramEnded(BaseException):
    """The program will not answer any more; no `Exception`, so that tests do not catch it.

    Attributes:
        status: the status of the outcome.
        detail: the detail of the outcome.
    """

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class FunctionUnderTest:
    """The function under test as the tests see it: a call is answered by the program's process.

    Attributes:
        process: the id of the program's process.
        link: the connection to it.
        limits: the fields of `sandbox.Limits`.
        ended: why the program does not answer any more; None while it does.
        flattened: the first class whose values were passed as values of its base class.
    """

    def __init__(self, process: int, link: Link, limits: dict[str, Any]) -> None:
        self.process = process
        self.link = link
        self.limits = limits
        self.ended: ProgramEnded | None = None
        self.flattened = ""

    def load(self, request: dict[str, Any]) -> None:
        """Run the program's source in its process; raise the exception that it raises."""
        names = ("source", "entry_point", "filter", "limits")
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
            what = f"the program's result cannot be decoded ({type(error).__name__})"
            raise self._end("failed", what) from None
        self._raise(reply)
        return value

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return the reply, with a value or an exception.

        Raises:
            ProgramEnded: there is no reply, or none that can be used.
        """
        reply = {} if self.ended else self._exchange(message)
        if "unsupported" in reply:
            self._end("unsupported", f"the program has a value {reply['unsupported']}")
        if "broken" in reply:
            self._end("error", str(reply["broken"]))
        if self.ended is not None:
            raise self.ended
        return reply

    def _raise(self, reply: dict[str, Any]) -> None:
        if "raised" not in reply:
            return
        error = rebuild(reply)
        self.ended = error if isinstance(error, ProgramEnded) else None
        raise error

    def _end(self, status: str, detail: str) -> ProgramEnded:
        self.ended = ProgramEnded(status, detail)
        return self.ended

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the reply; if there will be none, set `ended` and return an empty reply."""
        try:
            self.link.send(message)
            return dict(self.link.receive())
        except TimeoutError:
            self._end("timeout", f"no answer within {self.limits['wall_seconds']:g} s")
        except (LinkError, OSError, ValueError, TypeError, RecursionError) as error:
            self.ended = self._end_of_process(error)
        return {}

    def _end_of_process(self, error: Exception) -> ProgramEnded:
        """Return how the program's process ended; kill it first if it only closed the link."""
        os.kill(self.process, signal.SIGKILL)
        _, status, usage = os.wait4(self.process, 0)
        signalled = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        if signalled or usage.ru_utime + usage.ru_stime >= self.limits["cpu_seconds"]:
            limit = self.limits["cpu_seconds"]
            return ProgramEnded("timeout", f"more than {limit} s of processor time")
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return ProgramEnded("failed", f"the program ended itself (code {code})")
        return ProgramEnded("failed", f"the program died (signal {os.WTERMSIG(status)}; {error})")


def rebuild(reply: dict[str, Any]) -> BaseException:
    """Return the program's exception as one of the nearest built-in class among its base classes.

    StopIteration becomes a RuntimeError, as in a generator: in `all(map(candidate, …))` it would
    end the test's loop as if all values had been right.
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
    return ProgramEnded("failed", f"the program raised {name}: {message}".rstrip(": "))


def describe(error: BaseException, tests: str) -> str:
    """Return the error's text and the last line of the tests in its traceback."""
    lines = tests.splitlines()
    text = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
    left_from, trace = 0, error.__traceback__
    while trace is not None:  # the module traceback would cost each program 4 ms
        if trace.tb_frame.f_code.co_filename == TESTS and trace.tb_lineno <= len(lines):
            left_from = trace.tb_lineno
        trace = trace.tb_next
    return f"{text} at `{lines[left_from - 1].strip()}`" if left_from else text


def verdict(request: dict[str, Any], function: FunctionUnderTest) -> tuple[str, str]:
    """Return status and detail: `passed` only if `check(function)` returned."""
    namespace: dict[str, Any] = {"__name__": "tests", request["entry_point"]: function}
    try:
        code = compile(request["tests"], TESTS, "exec", dont_inherit=True)
        exec(code, namespace)  # noqa: S102
        check = namespace["check"]
    except Exception as error:
        return "error", f"the tests cannot be used: {describe(error, request['tests'])}"
    try:
        function.load(request)
        check(function)
    except ProgramEnded as ended:
        return ended.status, ended.detail
    except BaseException as error:
        detail = describe(error, request["tests"])
        if function.flattened and isinstance(error, (AttributeError, TypeError)):
            return "unsupported", f"a {function.flattened} was passed as its base class: {detail}"
        return "failed", detail
    if function.ended is not None:  # a bare `except:` in the tests caught the exception
        return function.ended.status, function.ended.detail
    return "passed", ""


def main() -> None:
    """Read a request from standard input; write the signed outcome to the pipe of `argv[1]`."""
    if sys.platform.startswith("linux"):  # other processes cannot read this one through /proc
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 ignores signals without a handler
    verdicts = int(sys.argv[1])
    process, connection = start_program(verdicts)
    import hmac  # in parallel with the start of the program's process

    request = json.load(sys.stdin)
    silence()  # discard what the tests print
    key, limits = bytes.fromhex(request.pop("key")), request["limits"]
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"],) * 2)
    link = Link(connection, time.monotonic() + limits["wall_seconds"])
    status, detail = verdict(request, FunctionUnderTest(process, link, limits))
    message = json.dumps([status, " ".join(detail.split())[:DETAIL_CHARACTERS]])
    signature = hmac.new(key, message.encode(), "sha256").hexdigest()
    os.write(verdicts, f"{signature} {message}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
