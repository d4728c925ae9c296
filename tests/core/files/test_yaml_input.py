"""Limits of what is read as YAML, each at its last value and one beyond."""

from pathlib import Path

import pytest

from lori_core.core.errors import ConfigError, DataError
from lori_core.core.files import yaml_input
from lori_core.core.files.yaml_input import MOST_BYTES, MOST_DEPTH, YAMLFaultError
from lori_core.pipeline.params_file import _yaml


def load(text: str, most: int = 100) -> object:
    return yaml_input.plain(yaml_input.loads(text, _yaml().load, most=most), "x: ")


def test_what_is_read_is_plain() -> None:
    text = "a: &a {b: 1, c: 0x10, d: 5e-4, e: yes, f: true, g: ~, h: '1'}\ni: [*a, &f false]\n"
    inside = {"b": 1, "c": 16, "d": 5e-4, "e": "yes", "f": True, "g": None, "h": "1"}
    read = load(text)
    assert read == {"a": inside, "i": [inside, False]}
    assert type(read["i"][1]) is bool  # type: ignore[index]
    assert {type(value) for value in read["a"].values()} == {int, float, str, bool, type(None)}  # type: ignore[index]


def test_depth() -> None:
    assert load("[" * MOST_DEPTH + "]" * MOST_DEPTH)
    with pytest.raises(YAMLFaultError, match="nested more than 32 deep"):
        load("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1))


@pytest.mark.parametrize(
    ("text", "values"),
    [("[1, 2]", 3), ("{a: 1}", 3), ("[&a [1, 2], *a]", 7), ("{a: &a 1, b: *a}", 5)],
)
def test_values_are_counted_with_what_aliases_repeat(text: str, values: int) -> None:
    assert load(text, values)
    with pytest.raises(YAMLFaultError, match=rf"more than {values - 1} values"):
        load(text, values - 1)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a:\n- !!set {b}", 2, r"the tag 'tag:yaml.org,2002:set' is not read here"),
        ("a: 1\n---\nb: 1", 2, "a second document begins"),
        ("%YAML 1.1\n---\na: 1", 1, "directives"),
        ("a:\n- &b [*b]", 2, r"\*b: a list or section holds itself"),
        ("a: 1\nb: " + "7" * 65, 2, "a number of 65 digits"),
        ("a: 1\nb: x\x00", 2, r"holds the character '\\x00'"),
        ("a: 1\nb: [", 3, "not valid YAML"),
        ("a: 2020-13-45", None, "not valid YAML"),
    ],
)
def test_a_fault_has_its_line(text: str, line: int | None, why: str) -> None:
    with pytest.raises(YAMLFaultError, match=why) as caught:
        load(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: [1, .nan]}", r"^x: a.b\[1\]: nan is no finite number"),
        ("a: 1e400", r"^x: a: inf is no finite number"),
        (f"a: {2**63}", r"^x: a: 9223372036854775808 does not fit into 64 bits"),
        ("a: 2020-01-01", r"^x: a: 2020-01-01, a date, is not read here"),
        ('a: "\\0"', r"^x: a: '\\x00' holds the character '\\x00'"),
        ("7: a", r"^x: 7: a key must be text"),
    ],
)
def test_a_value_that_no_key_may_have_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_a_number_of_64_bits_is_read() -> None:
    assert load(f"[{2**63 - 1}, {1 - 2**63}]") == [2**63 - 1, 1 - 2**63]


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yaml_input.read_text(path) == "a: 1\n"
    path.write_bytes(b"#" * MOST_BYTES)
    assert len(yaml_input.read_text(path)) == MOST_BYTES
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(DataError, match=r"has 262,145 bytes; at most 262,144"):
        yaml_input.read_text(path, error=DataError)
    path.write_bytes("a".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"is UTF-16 text; save it as UTF-8"):
        yaml_input.read_text(path)
    path.write_bytes(b"a\nb\xe9")
    with pytest.raises(ConfigError, match=r"file:2: not UTF-8 text \(byte 3\)"):
        yaml_input.read_text(path)
