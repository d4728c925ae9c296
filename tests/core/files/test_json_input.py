import re
from typing import Any

import pytest

from lori_core.core.files import json_input
from lori_core.core.files.json_input import JSONError, check_text, loads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5, true, null, "x"]}', {"a": [1, -2.5, True, None, "x"]}),
        (b'"\xc3\xa9"', "é"),
        ('"' + "[" * 500 + '\\"{"', "[" * 500 + '"{'),
        ("[" * 100 + "]" * 100, None),
        ("-" + "9" * 4300, -int("9" * 4300)),
        ('{"a": {"a": 1}, "b": {"a": 2}}', {"a": {"a": 1}, "b": {"a": 2}}),
    ],
)
def test_json_is_read(text: str | bytes, value: Any) -> None:
    assert value is None or loads(text) == value
    loads(text)


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("[1,\n2,\n}", 3, "not valid JSON (Expecting value)"),
        ('{"a": 1,\n"b": {"c": 1, "c": 2}}', 2, "an object has the key 'c' twice"),
        ("[\n" + "[" * 100 + "]" * 101, 2, "lists and objects are nested 101 deep"),
        ("[" * 200_000, 1, "nested 200000 deep, too deep to be read (at most 100)"),
        ('["x",\n' + "9" * 4301 + "]", 2, "an integer of more than 4300 digits"),
        ("[1,\nNaN]", 2, "not valid JSON (NaN is no number in JSON"),
        ('{"a": 1e999}', 1, "1e999 is no number in JSON"),
        (b'["a",\n"\xff"]', 2, "not UTF-8 text (byte 7)"),
        ("[" + "1," * 600_000 + "1]", 1, "600,001 values, too many to be read (at most 500,000)"),
        ("", 1, "not valid JSON"),
    ],
)
def test_what_is_no_json_or_beyond_a_limit_is_named_with_its_line(
    text: str | bytes, line: int, fault: str
) -> None:
    with pytest.raises(JSONError, match=re.escape(fault)) as found:
        loads(text)
    assert found.value.line == line


def test_a_long_text_may_have_more_values() -> None:
    text = '["' + '","'.join(["a text of a row"] * 600_000) + '"]'
    assert len(loads(text)) == 600_000
    assert len(text) // json_input.BYTES_PER_VALUE > json_input.MOST_VALUES


@pytest.mark.parametrize(
    "text", ['{"a":\n"\\ud800"}', '{"a":\n"\\uDC00x"}', '{"b": 1,\n"\\uD8ab": 1}']
)
def test_half_a_surrogate_pair_is_no_text(text: str) -> None:
    with pytest.raises(JSONError, match="half a surrogate pair") as found:
        check_text(text, loads(text))
    assert found.value.line == 2


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\\\ud800"', '"x"'])
def test_whole_pairs_and_what_only_looks_like_half_are_text(text: str) -> None:
    check_text(text, loads(text))
