import re

import pytest

from lori_core.core import name_patterns
from lori_core.core.name_patterns import PatternError, matching
from lori_core.core.processes import limited

NAMES = [f"model.layers.{n}.self_attn.{p}_proj" for n in (1, 11) for p in "qv"]


@pytest.mark.parametrize(
    "pattern",
    [
        *("q_proj", "self_attn.q_proj", "layers.1.self_attn.q_proj", r"layers\.1\..*", "proj"),
        *(f"^{re.escape(NAMES[0])}", f"^{NAMES[0]}", "^q_proj", ".*v_proj", "(q|v)_proj", "x+"),
        *(r".*\.1\..*(q|v)_proj", "(?:q|k)_proj", r"\d", "q_pro.", "q_proj$", ""),
    ],
)
def test_a_pattern_matches_what_it_matches_in_peft(pattern: str) -> None:
    last = {name for name in NAMES if re.match(rf"(.*\.)?({pattern})$", name)}
    assert matching([pattern], NAMES, "last parts") == {pattern: last}
    whole = {name for name in NAMES if re.fullmatch(pattern, name)}
    assert matching([pattern], NAMES, "whole") == {pattern: whole}


def test_many_patterns_are_matched_together() -> None:
    exact = [f"^{re.escape(name)}" for name in NAMES] * 500
    last = [f"layers.{n}.self_attn.q_proj" for n in range(200)]
    found = matching([*exact, *last], NAMES, "last parts")
    assert found[exact[1]] == {NAMES[1]}
    assert found[last[11]] == {NAMES[2]}
    assert found[last[2]] == set()


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(", "'(' is no regular expression (missing ), unterminated subpattern"),
        ("a{99999999999}", "is no regular expression"),
        ("x" * 20_000, "has 20000 characters; a pattern has 10000 at most"),
        ("(.*)*x", "cannot be matched with 4 names: it takes more than"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, fault: str) -> None:
    with pytest.raises(PatternError, match=re.escape(fault)):
        matching(["q_proj", pattern], NAMES, "last parts")


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        # On a machine that is very busy the time on the clock is over first.
        ("while True: pass", "more than (1 s of processor time|60 s)"),
        ("x = bytearray(1 << 32)", "more than (400 MB of memory|60 s)"),
    ],
)
def test_a_program_is_stopped_at_its_limits(program: str, fault: str) -> None:
    with pytest.raises(limited.BeyondLimitsError, match=fault):
        limited.run(program, None)


def test_a_program_gets_what_it_is_given_and_says_what_it_found() -> None:
    assert limited.run("print(json.dumps([data, 'é']))", {"a": "ü"}) == [{"a": "ü"}, "é"]
    assert name_patterns.matching([], NAMES, "whole") == {}
