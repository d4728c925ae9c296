"""Verdicts that a program forges, prevents or drowns, and values the tests and it exchange."""

from __future__ import annotations

import textwrap

import pytest

from lori_core.evaluation import sandbox
from lori_core.evaluation.sandbox import Isolation, Outcome, Program, run_program, works

ISOLATIONS = [way for way in Isolation if works(way)]
SQUARES = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n"
ECHO = (
    "def check(candidate):\n    seen = candidate(2)\n    print(seen)\n    assert seen == 4, seen\n"
)
FORGED = '["passed", ""]'
SIGNED = f"{'0' * 64} {FORGED}"

pytestmark = pytest.mark.skipif(
    not ISOLATIONS, reason="this machine can isolate nothing: apt-get install bubblewrap"
)
isolated = pytest.mark.parametrize("isolation", ISOLATIONS)


def judge(
    source: str, tests: str = SQUARES, isolation: Isolation | None = None, name: str = "square"
) -> Outcome:
    return run_program(
        Program(textwrap.dedent(source), textwrap.dedent(tests), name), isolation=isolation
    )


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


def test_a_message_that_cannot_be_printed_is_a_wrong_answer() -> None:
    for source in (
        "def square(n): return 10 ** 5000",
        "def square(n): raise ValueError(10 ** 5000)",
    ):
        tests = "def check(candidate):\n    seen = candidate(2)\n    assert seen == 4, seen\n"
        outcome = judge(source, tests)
        assert outcome.status == "failed", outcome
        assert "a message that cannot be shown: ValueError" in outcome.detail


def test_an_exception_without_a_text_is_still_that_exception() -> None:
    source = """
    class Mine(KeyError):
        def __str__(self): raise SystemExit
    def square(n): raise Mine
    """
    tests = """
    def check(candidate):
        try:
            candidate(1)
        except KeyError:
            return
        assert False
    """
    assert judge(source, tests).status == "passed"


CHANGES = {
    "a keyword argument": (
        "def square(n, into): into.append(n)",
        "into = [1]; candidate(2, into=into); assert into == [1, 2]",
    ),
    "a list inside a tuple": (
        "def square(pair): pair[0].append(2)",
        "pair = ([1],); candidate(pair); assert pair == ([1, 2],)",
    ),
    "a list inside a list, held by the test too": (
        "def square(rows): rows[0].append(2)",
        "row = [1]; candidate([row]); assert row == [1, 2]",
    ),
    "a value of a dict": (
        "def square(table): table['a'].add(2); del table['b']",
        "kept = {1}; table = {'a': kept, 'b': 0}; candidate(table); "
        "assert table == {'a': {1, 2}} and table['a'] is kept",
    ),
    "a bytearray": (
        "def square(data): data[0] = 0",
        "data = bytearray(b'ab'); candidate(data); assert data == b'\\0b'",
    ),
    "one list passed twice": (
        "def square(a, b): a.append(1); return len(b)",
        "one = []; assert candidate(one, one) == 1 and one == [1]",
    ),
    "the argument itself returned": (
        "def square(rows): rows.append(rows[0]); return rows",
        "row = []; rows = [row]; assert candidate(rows) is rows and rows[1] is row",
    ),
    "before an exception": (
        "def square(rows): rows.clear(); raise KeyError(1)",
        "rows = [1]\n    try: candidate(rows)\n    except KeyError: pass\n    assert rows == []",
    ),
    "a dict of a subclass": (
        "def square(counts): counts['b'] = 5",
        "import collections; counts = collections.Counter('aa'); candidate(counts); "
        "assert counts == {'a': 2, 'b': 5} and type(counts) is collections.Counter",
    ),
    "not a copy": (
        "def square(rows): return rows[:]",
        "rows = [1]; assert candidate(rows) == rows and candidate(rows) is not rows",
    ),
    "not what holds no number": (
        "def square(rows): return 1",
        "nan = float('nan'); rows = [nan]; candidate(rows); assert rows[0] is nan",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_changes_in_place_reach_the_tests(what: str) -> None:
    source, body = CHANGES[what]
    outcome = judge(source, f"def check(candidate):\n    {body}\n")
    assert outcome.status == "passed", outcome


@isolated
@pytest.mark.parametrize(
    "value",
    ["range(2, 9, 3)", "Decimal('1.10')", "Fraction(1, 3)", "bytearray(b'a')", "[frozenset({1})]"],
)
def test_numbers_and_ranges_cross(value: str, isolation: Isolation) -> None:
    imports = "from decimal import Decimal\nfrom fractions import Fraction\n"
    tests = (
        f"{imports}def check(candidate):\n    assert candidate({value}) == {value}\n"
        f"    assert repr(candidate(None)) == {value!r}\n"
    )
    source = f"{imports}def square(n): return {value} if n is None else n"
    expected = f"    assert repr(candidate(None)) == repr({value})\n"
    tests = tests.rsplit("    assert repr", 1)[0] + expected
    assert judge(source, tests, isolation).status == "passed"


UNSUPPORTED = {
    "a generator": ("def square(n): yield n", "assert list(candidate(1)) == [1]", "generator"),
    "a function": ("def square(n): return lambda: n", "assert candidate(1)() == 1", "function"),
    "an object": (
        "class P: x = 1\ndef square(n): return [P()]", "assert candidate(1)[0].x == 1", "type P",
    ),
    "an argument that became one": (
        "def square(n): n.append(len)", "n = []; candidate(n)", "builtin_function",
    ),
    "a callback": ("def square(f): return f(1)", "assert candidate(lambda n: n) == 1", "function"),
    "a callback, and a test that catches all": (
        "def square(f): return f(1)",
        "\n    try: candidate(lambda n: n)\n    except: pass", "function",
    ),
    "an attribute of a named tuple": (
        "import collections\ndef square(n): return collections.namedtuple('P', 'x')(n)",
        "assert candidate(1) == (1,); assert candidate(1).x == 1", "a P lost",
    ),
    "a method of a Counter": (
        "def square(c): return c.most_common(1)",
        "import collections; assert candidate(collections.Counter('aa')) == [('a', 2)]",
        "a Counter lost",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_cannot_cross_is_a_verdict_of_its_own(what: str) -> None:
    source, body, detail = UNSUPPORTED[what]
    outcome = judge(source, f"def check(candidate):\n    {body}\n")
    assert outcome.status == "unsupported", outcome
    assert detail in outcome.detail


def test_annotations_are_evaluated_as_python_does() -> None:
    outcome = judge("def square(n: Absent): return n * n")
    assert outcome.status == "failed"
    assert outcome.detail.startswith("NameError: name 'Absent' is not defined")


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
