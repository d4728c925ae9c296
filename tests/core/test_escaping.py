"""Text from outside stays text in Markdown, in YAML and in code."""

from __future__ import annotations

import pytest
import yaml

from lori_core.core import escaping
from lori_core.report import tables


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hub org/math (licence: cc-by-4.0)", "hub org/math (licence: cc-by-4.0)"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a\n\n# b", "a \\# b"),
        ("[x](javascript:y)", "\\[x\\](javascript:y)"),
        ("![x](http://spy)", "\\!\\[x\\](http://spy)"),
        ("a|b `c` *d* _e_ \\", "a\\|b \\`c\\` \\*d\\* \\_e\\_ \\\\"),
        ("bell\x07 and \x1b[31mred", "bell  and  \\[31mred"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_plain_text_has_no_markup(text: str, shown: str) -> None:
    assert escaping.plain(text) == shown


def test_a_cell_ends_no_cell_and_begins_no_tag() -> None:
    assert escaping.cell("a | b\n<b>c</b>, < 0.001") == "a \\| b &lt;b>c&lt;/b>, < 0.001"
    assert tables.markdown(["a|b"], [["c\nd"]]) == ["| a\\|b |", "| --- |", "| c d |"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a", "`a`"), ("a`b", "``a`b``"), ("`a`", "`` `a` ``"), ("", "`  `"), ("a\nb", "`a b`")],
)
def test_code_in_a_line_ends_where_it_should(text: str, shown: str) -> None:
    assert escaping.code(text) == shown


def test_a_block_of_code_ends_where_it_should() -> None:
    assert escaping.block(["a", "```", "<b>\x1b"]) == ["````", "a", "```", "<b> ", "````"]
    assert escaping.block(["a"], "python") == ["```python", "a", "```"]


@pytest.mark.parametrize(
    "text",
    ["random:llama", "org/name", "null", "1.0", "a: b", "x # y", 'a"b\nc: d', "", "- a", "é"],
)
def test_a_value_of_yaml_is_read_as_it_was_written(text: str) -> None:
    written = escaping.yaml(text)
    assert yaml.safe_load(f"key: {written}\nother: 1\n") == {"key": text, "other": 1}
    assert escaping.yaml("random:llama") == "random:llama"
