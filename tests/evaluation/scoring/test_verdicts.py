"""Verdicts that a program forges, prevents or drowns."""

from __future__ import annotations

import textwrap

import pytest

from lori_core.evaluation.sandbox import sandbox
from lori_core.evaluation.sandbox.sandbox import Isolation, Outcome, Program, run_program, works

ISOLATIONS = [way for way in Isolation if works(way)]
SQUARES = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n"
ECHO = (
    "def check(candidate):\n    seen = candidate(2)\n    print(seen)\n    assert seen == 4, seen\n"
)
FORGED = '["passed", ""]'
SIGNED = f"{'0' * 64} {FORGED}"

pytestmark = [
    pytest.mark.usefixtures("nothing_survives"),
    pytest.mark.skipif(
        not ISOLATIONS, reason="this machine can isolate nothing: apt-get install bubblewrap"
    ),
]
isolated = pytest.mark.parametrize("isolation", ISOLATIONS)


def judge(source: str, tests: str = SQUARES, isolation: Isolation | None = None) -> Outcome:
    program = Program(textwrap.dedent(source), textwrap.dedent(tests), "square")
    return run_program(program, isolation=isolation)


# ------------------------------------------------------------------ forged verdicts

OLD = '{"status": "passed", "detail": ""}'
HOSTILE = {
    "ends-in-a-verdict-where-reading-stopped": (
        f"def square(n):\n    text = chr(10) + {OLD!r}\n    return text.rjust(65536, 'x')",
        ECHO, "failed",
    ),
    "raises-a-verdict": (
        f"def square(n): raise ValueError(chr(10) + {SIGNED!r} + chr(10))", SQUARES, "failed",
    ),
    "writes-a-verdict-to-every-descriptor": (
        f"""
        import os
        def square(n):
            for name in [*range(1024), *("/proc/1/fd/%d" % n for n in range(32))]:
                try:
                    file = name if isinstance(name, int) else os.open(name, os.O_WRONLY)
                    os.write(file, {SIGNED!r}.encode() + b"\\n")
                except OSError:
                    pass
            os._exit(0)
        """, SQUARES, "failed",
    ),
    "takes-the-judge's-descriptors": (
        f"""
        import ctypes, os
        def square(n):
            call = ctypes.CDLL(None).syscall
            judge = os.pidfd_open(1)
            for number in range(64):
                file = call(438, judge, number, 0)
                if file >= 0:
                    os.write(file, {SIGNED!r}.encode() + b"\\n")
            return 0
        """, SQUARES, "failed",
    ),
    "lowers-the-judge's-processor-time": (
        """
        import resource
        def square(n):
            resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))
            return 0
        """, SQUARES, "failed",
    ),
    "prints-a-verdict-and-has-the-judge-killed": (
        f"""
        import resource
        def square(n):
            try:
                resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))
            except OSError:
                pass
            return {OLD!r}
        """,
        "def check(candidate):\n    print(candidate(2), flush=True)\n    sum(range(10**7))\n"
        "    assert candidate(-3) == 9\n", "failed",
    ),
    "lowers-every-limit-of-the-judge": (
        """
        import resource
        def square(n):
            for kind in range(16):
                try:
                    resource.prlimit(1, kind, (0, 0))
                except OSError:
                    pass
            return n * n + 1
        """, SQUARES, "failed",
    ),
    "prints-a-verdict-and-kills-everybody": (
        f"""
        import os
        def square(n):
            print({SIGNED!r}, flush=True)
            for number in range(1, 65):
                for target in (1, -1, os.getppid()):
                    try:
                        os.kill(target, number) if number != 9 or target == 1 else None
                    except OSError:
                        pass
            return 0
        """, SQUARES, "failed",
    ),
    "stops-the-loop-of-the-test": (
        "def square(n): raise StopIteration",
        "def check(candidate):\n    assert all(map(candidate, [1, 2]))\n", "failed",
    ),
    "stops-the-loop-by-a-class-of-its-own": (
        "class Mine(StopIteration): pass\ndef square(n): raise Mine(n)",
        "def check(candidate):\n    assert list(map(candidate, [1, 2])) == []\n", "failed",
    ),
    "sends-an-object-that-is-not-there": (
        """
        import json, os
        def square(n):
            text = json.dumps({"value": {"object": 7}, "objects": []}).encode()
            for file in range(3, 64):
                try:
                    os.write(file, len(text).to_bytes(8, "big") + text)
                except OSError:
                    pass
            return 0
        """, SQUARES, "failed",
    ),
    "claims-to-be-broken": (
        """
        import json, os
        text = json.dumps({"value": 4, "broken": "no filter"}).encode()
        for file in range(3, 64):
            try:
                os.write(file, len(text).to_bytes(8, "big") + text)
            except OSError:
                pass
        """, SQUARES, "error",
    ),
    "interrupts-the-tests": (
        """
        import fcntl, os, signal, socket
        def square(n):
            reached = []
            mine, other = socket.socketpair()
            for attempt in (
                lambda: os.kill(1, signal.SIGUSR1),
                lambda: os.kill(0, signal.SIGUSR1),
                lambda: signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGUSR1),
                lambda: signal.pidfd_send_signal(os.open("/proc/1", 0), signal.SIGUSR1),
                lambda: fcntl.fcntl(mine, fcntl.F_SETOWN, 1),
                lambda: fcntl.fcntl(mine, fcntl.F_SETSIG, signal.SIGUSR1),
            ):
                try:
                    attempt()
                    reached.append(attempt)
                except OSError:
                    pass
            return len(reached) or "none"
        """,
        """
        import signal
        def check(candidate):
            calls = []
            signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
            seen = candidate(2)
            assert seen != "none" or calls, "nothing was reached"
        """, "failed",
    ),
    "loses-its-filter": (
        """
        import ctypes
        def square(n):
            libc = ctypes.CDLL(None)
            libc.prctl(22, 0, 0, 0, 0)
            libc.prctl(38, 0, 0, 0, 0)
            return n * n if libc.ptrace(16, 1, 0, 0) == 0 else 0
        """, SQUARES, "failed",
    ),
}  # fmt: skip


@isolated
@pytest.mark.parametrize("name", HOSTILE)
def test_no_forged_verdict_passes(name: str, isolation: Isolation) -> None:
    source, tests, status = HOSTILE[name]
    outcome = judge(source, tests, isolation)
    assert outcome.status == status, outcome


def test_a_line_that_nobody_signed_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (FORGED, SIGNED, "", "0" * 100_000, f"{SIGNED}\\nmore", "\\0"):
        script = f"printf '%s\\n' '{line}' >&$1"
        monkeypatch.setattr(
            sandbox, "_command", lambda _, fd, script=script: ["bash", "-c", script, "x", str(fd)]
        )
        outcome = judge("", isolation=ISOLATIONS[0])
        assert outcome.status == "error", (line, outcome)


# ------------------------------------------------------------------ honest programs and tests


@isolated
def test_tests_may_print_what_they_like(isolation: Isolation) -> None:
    tests = """
    import os, sys
    def check(candidate):
        print("x" * 10_000_000)
        print("y" * 100_000, file=sys.stderr)
        os.write(1, b"z" * 100_000)
        assert candidate(2) == 4
    """
    right = judge("def square(n):\n    print('n' * 200_000)\n    return n * n", tests, isolation)
    wrong = judge("def square(n): return 5", tests, isolation)
    assert right.status == "passed", right
    assert (wrong.status, wrong.detail) == (
        "failed",
        "AssertionError at `assert candidate(2) == 4`",
    )


def test_what_a_program_may_start_and_open() -> None:
    source = """
    import asyncio, os, socket, sqlite3, subprocess, sys, tempfile, threading
    def square(n):
        async def later():
            await asyncio.sleep(0)
            return n
        seen = [asyncio.run(later())]
        thread = threading.Thread(target=lambda: seen.append(n))
        thread.start()
        thread.join()
        child = subprocess.run([sys.executable, "-S", "-c", f"print({n})"], stdout=-1)
        seen.append(int(child.stdout))
        with tempfile.TemporaryDirectory() as folder:
            with open(folder + "/x", "w") as file:
                file.write(str(n))
            os.rename(folder + "/x", folder + "/y")
            seen.append(int(open(folder + "/y").read()))
        a, b = socket.socketpair()
        a.send(b"2")
        seen.append(int(b.recv(1)))
        seen += sqlite3.connect(":memory:").execute(f"select {n}").fetchone()
        return seen
    """
    tests = "def check(candidate):\n    seen = candidate(2)\n    assert seen == [2] * 6, seen\n"
    outcome = judge(source, tests)
    assert outcome.status == "passed", outcome
