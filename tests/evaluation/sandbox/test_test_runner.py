"""What the tests and the program exchange: values, changes in place, exceptions."""

from __future__ import annotations

import textwrap

import pytest

from lori_core.evaluation.sandbox.sandbox import Isolation, Outcome, Program, run_program, works

ISOLATIONS = [way for way in Isolation if works(way)]
SQUARES = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n"

pytestmark = pytest.mark.skipif(
    not ISOLATIONS, reason="this machine can isolate nothing: apt-get install bubblewrap"
)
isolated = pytest.mark.parametrize("isolation", ISOLATIONS)


def judge(source: str, tests: str = SQUARES, isolation: Isolation | None = None) -> Outcome:
    program = Program(textwrap.dedent(source), textwrap.dedent(tests), "square")
    return run_program(program, isolation=isolation)


def test_a_message_that_cannot_be_printed_is_a_wrong_answer() -> None:
    for source in (
        "def square(n): return 10 ** 5000",
        "def square(n): raise ValueError(10 ** 5000)",
    ):
        tests = "def check(candidate):\n    seen = candidate(2)\n    assert seen == 4, seen\n"
        outcome = judge(source, tests)
        assert outcome.status == "failed", outcome
        assert "a message that cannot be shown: ValueError" in outcome.detail


def test_a_detail_is_one_line() -> None:
    outcome = judge("def square(n): raise ValueError('a\\n\\nb')")
    assert outcome.detail == "ValueError: a b at `assert candidate(2) == 4`"


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
    "a tuple too deep": (
        "def square(n):\n    t = ()\n    for _ in range(10**5): t = (t,)\n    return t",
        "assert candidate(1)", "too deep",
    ),
    "a callback": ("def square(f): return f(1)", "assert candidate(lambda n: n) == 1", "function"),
    "a callback, and a test that catches all": (
        "def square(f): return f(1)",
        "\n    try: candidate(lambda n: n)\n    except: pass", "function",
    ),
    "an attribute of a named tuple": (
        "import collections\ndef square(n): return collections.namedtuple('P', 'x')(n)",
        "assert candidate(1) == (1,); assert candidate(1).x == 1", "a P was passed as its base",
    ),
    "a method of a Counter": (
        "def square(c): return c.most_common(1)",
        "import collections; assert candidate(collections.Counter('aa')) == [('a', 2)]",
        "a Counter was passed as its base",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_values_of_unsupported_types_are_unsupported(what: str) -> None:
    source, body, detail = UNSUPPORTED[what]
    outcome = judge(source, f"def check(candidate):\n    {body}\n")
    assert outcome.status == "unsupported", outcome
    assert detail in outcome.detail


def test_annotations_are_evaluated_as_python_does() -> None:
    outcome = judge("def square(n: Absent): return n * n")
    assert outcome.status == "failed"
    assert outcome.detail.startswith("NameError: name 'Absent' is not defined")
