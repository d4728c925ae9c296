"""What of a record becomes text, and what is refused with its place and field."""

import datetime
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lori_core import config
from lori_core.config import SourceSection
from lori_core.core.errors import DataError
from lori_core.data import pulled
from lori_core.data.sources import pulling
from lori_core.data.sources.formats import convert, needs
from lori_core.data.text import fill, text_of
from support import dvc_workspace, refused

CHAT = {
    "messages": [
        {"role": "user", "content": "Two and two?"},
        {"role": "assistant", "content": "4"},
    ]
}


@pytest.mark.parametrize(
    ("template", "record", "text"),
    [
        ("q", {"q": " Why?\n"}, "Why?"),
        ("{q}", {"q": "{x} {{y}}"}, "{x} {{y}}"),
        ("{{{q}}} }}{{", {"q": "a"}, "{a} }{"),
        ("", {}, ""),
        ("{q[text]}, {q.text}", {"q": {"text": "a"}}, "a, a"),
        ("{messages[1][content]}", CHAT, "4"),
        ("messages[0].content", CHAT, "Two and two?"),
        ("{a[0][1]}", {"a": [["x", "y"]]}, "y"),
        ("{a[0]}", {"a": {"0": "of a key"}}, "of a key"),
        ("{a.b} {c d}", {"a.b": "dotted", "a": {"b": "inner"}, "c d": "spaced"}, "dotted spaced"),
        ("{n}", {"n": 7}, "7"),
        ("{n}", {"n": -(10**40)}, "-" + "1" + "0" * 40),
        ("{n}", {"n": 10**400}, "1" + "0" * 400),
        ("{n}", {"n": -(10**4299)}, "-1" + "0" * 4299),
        ("{n}", {"n": Decimal("1e400")}, "1E+400"),
        ("{n}", {"n": 1.0}, "1.0"),
        ("{n}", {"n": 1e22}, "1e+22"),
        ("{n}", {"n": 0.1}, "0.1"),
        ("{n}", {"n": Decimal("1.50")}, "1.50"),
        ("{a}\n\n{b}", {"a": "x", "b": None}, "x"),
        ("Question: {a}{b}", {"a": None, "b": " "}, ""),
        ("{a}", {"a": "None"}, "None"),
    ],
)
def test_text_and_numbers_are_filled_in(template: str, record: Any, text: str) -> None:
    assert fill(template, record, "prompt", "here") == text


NOT_TEXT = "not text or a number"
LEAVE = "write it as text in the file, or leave the record out"


@pytest.mark.parametrize(
    ("template", "record", "fault"),
    [
        (
            "messages",
            CHAT,
            f"field 'messages' for 'prompt' is a list of 2 items, {NOT_TEXT}; a template can name "
            "one part of it, as {messages[0][content]}",
        ),
        (
            "a",
            {"a": ["x", "y"]},
            f"is a list of 2 items, {NOT_TEXT}; a template can name one part ",
        ),
        ("a", {"a": ["x"]}, "of it, as {a[0]}"),
        ("a", {"a": {"n": 1, "said": "x"}}, f"is an object with 2 keys, {NOT_TEXT}; a template"),
        ("a", {"a": {"n": 1, "said": "x"}}, "of it, as {a[said]}"),
        ("{a[0]}", {"a": [{"value": ["x"]}]}, "'a[0]' for 'prompt' is an object with 1 keys, "),
        ("{a[0]}", {"a": [{"value": ["x"]}]}, "as {a[0][value][0]}"),
        ("a", {"a": []}, f"is a list of 0 items, {NOT_TEXT}; {LEAVE}"),
        ("a", {"a": {}}, f"is an object with 0 keys, {NOT_TEXT}; {LEAVE}"),
        ("a", {"a": True}, f"field 'a' for 'prompt' is true, {NOT_TEXT}; {LEAVE}"),
        ("a", {"a": False}, f"is false, {NOT_TEXT}; {LEAVE}"),
        ("{a[b]}", {"a": {"b": None}}, f"'a[b]' for 'prompt' is null, {NOT_TEXT}; {LEAVE}"),
        ("a", {"a": datetime.date(2026, 1, 2)}, f"is of the type date, {NOT_TEXT}; {LEAVE}"),
        ("a", {"a": b"bytes"}, f"is of the type bytes, {NOT_TEXT}; {LEAVE}"),
        ("a", {"a": math.nan}, "field 'a' for 'prompt' is nan, which is no number; leave the rec"),
        ("a", {"a": -math.inf}, "is -inf, which is no number"),
        ("a", {"a": Decimal("NaN")}, "is NaN, which is no number"),
        ("a", {"a": Decimal("sNaN")}, "is sNaN, which is no number"),
        ("a", {"a": {"x\ny\x1b\ud800é": "z"}}, "of it, as {a[x\\ny\\x1b\\ud800é]}"),
        ("a", {"a": {"x[0]": "z"}}, f"is an object with 1 keys, {NOT_TEXT}; {LEAVE}"),
        ("a", {"x\r\ny\x1b\ud800é": 1}, "(the record has: x\\r\\ny\\x1b\\ud800é)"),
        ("{a[x\ny].b}", {"a": {"x\ny": {}}}, "is missing (a[x\\ny] has: nothing)"),
        ("b", {"a": 1}, "field 'b' for 'prompt' is missing (the record has: a)"),
        ("b", {}, "field 'b' for 'prompt' is missing (the record has: nothing)"),
        ("{a[b]}", {"a": None}, "field 'a[b]' for 'prompt' is missing (a is null)"),
        ("{a.b.c}", {"a": {"b": "x"}}, "field 'a.b.c' for 'prompt' is missing (a[b] is text)"),
        ("{a.b}", {"a": {"c": "x"}}, "field 'a.b' for 'prompt' is missing (a has: c)"),
        ("{a[2]}", {"a": ["x", "y"]}, "field 'a[2]' for 'prompt' is missing (a is a list of 2"),
        ("{a[x]}", {"a": ["x", "y"]}, "field 'a[x]' for 'prompt' is missing (a is a list of 2"),
        ("{a[0]}", {"a": "xy"}, "field 'a[0]' for 'prompt' is missing (a is text)"),
        ("{a[9999999999]}", {"a": []}, "field 'a[9999999999]' for 'prompt' is missing (a is a l"),
        ("a", {"a": "x\ud83d"}, r"'prompt': character 2 is half a surrogate pair (\ud83d), which "),
        ("a", {"a": "\ude00x"}, r"character 1 is half a surrogate pair (\ude00), which is no text"),
        ("a", {"a": "xy\0"}, r"field 'a' for 'prompt': character 3 is null (\u0000); remove it"),
    ],
)
def test_all_else_is_refused_with_place_and_field(template: str, record: Any, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        fill(template, record, "prompt", "file.jsonl:7")
    assert str(caught.value).startswith("file.jsonl:7: field ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_surrogate_pair_in_json_is_a_character() -> None:
    record = json.loads('{"q": "\\ud83d\\ude00"}')
    assert fill("q", record, "prompt", "here") == "\N{GRINNING FACE}"


def test_a_number_of_another_library_is_written_plainly() -> None:
    import numpy as np

    assert text_of(np.float64(0.5), "it", "here") == "0.5"
    with pytest.raises(DataError, match="here: it is of the type float32"):
        text_of(np.float32(0.5), "it", "here")


def test_needs_are_the_fields_at_the_top_of_a_record() -> None:
    fields = {"prompt": "{messages[0][content]} {q} {messages[1][content]}", "target": "a.b"}
    assert needs(SourceSection(kind="local", fields=fields)) == ("messages", "q", "a")


BAD = [
    ("piqa", {"goal": "x\ud800", "sol1": "a", "sol2": "b", "label": 0}, "field 'goal': character"),
    ("xstest", {"prompt": "x", "label": ["safe"]}, "field 'label': ['safe'] (allowed: safe, unsa"),
    ("xstest", {"prompt": "x", "label": "safe", "type": ["a"]}, "field 'type' is a list of 1 ite"),
    ("instructions", "x\0", "the request: character 2 is null"),
    (
        "piqa",
        {"goal": "x", "sol1": "a", "sol2": "b", "label": 1.0},
        "field 'label': 1.0 names no c",
    ),
    (
        "piqa",
        {"goal": ["y" * 999] * 99, "sol1": "a", "sol2": "b", "label": 1},
        "field 'goal' must be ",
    ),
]


@pytest.mark.parametrize(("form", "record", "fault"), BAD)
def test_a_form_of_its_own_follows_the_same_rule(form: str, record: Any, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        convert(record, SourceSection(kind="local", format=form), "file:3")
    assert str(caught.value).startswith(f"file:3: {fault}")
    assert len(str(caught.value)) < 800


def test_a_number_that_names_a_record_is_text_and_null_is_none() -> None:
    record = {"task_id": 2, "prompt": "def f():\n", "entry_point": "f", "test": "def check(c):\n 0"}
    source = SourceSection(kind="local", format="humaneval")
    assert convert(record, source, "here").template == "2"
    assert convert(record | {"task_id": None}, source, "here").template == ""


# ------------------------------------------------------------------ from the command


def pull(folder: Path, text: str, name: str = "train.jsonl", **fields: str) -> config.Params:
    (folder / name).write_text(text)
    given = {"prompt": "q", "target": "a"} | fields
    source = {"kind": "local", "path": str(folder / name), "fields": given}
    task = {"source": source, "calibration": {}, "training": {}}
    values: dict[str, Any] = {"model": {"name_or_path": "random:llama"}, "lori": {}, "training": {}}
    return config.parse(values | {"tasks": {"task": task}}, "params.yaml")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{"q": "x\\ud83d", "a": "b"}', "field 'q' for 'prompt': character 2 is half a surrogate"),
        ('{"q": "x", "a": NaN}', r"not valid JSON \(NaN is no number in JSON"),
        ("[" * 100_000, "lists and objects are nested 100000 deep"),
        ('{"q": ' + "1" * 6_000 + ', "a": "b"}', "an integer of more than 4300 digits"),
        ('{"q": ' + "[" * 50 + "]" * 50 + ', "a": "b"}', "field 'q' for 'prompt' is a list of 1"),
        ('{"q": ' + "[" * 500 + "]" * 500 + ', "a": "b"}', "lists and objects are nested 501 deep"),
    ],
)
def test_the_line_is_that_of_the_file_though_lines_are_blank(
    tmp_path: Path, row: str, fault: str
) -> None:
    params = pull(tmp_path, f'{{"q": "x", "a": "y"}}\n\n \n{row}\n')
    with pytest.raises(DataError, match=rf"train.jsonl:4: {fault}"):
        pulling.pull(params, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_record_of_a_json_file_is_counted(tmp_path: Path) -> None:
    params = pull(tmp_path, '[{"q": "x", "a": "y"}, {"q": "x", "a": [1]}]', "set.json")
    with pytest.raises(DataError, match=r"set.json: record 2: field 'a' for 'target' is a list of"):
        pulling.pull(params, tmp_path / "data")


def test_chat_data_is_pulled_by_the_path_that_the_error_names(tmp_path: Path) -> None:
    rows = [{"messages": [{"content": f"Q{n}"}, {"content": f"A{n}"}]} for n in range(4)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    fields = {"prompt": "{messages[0][content]}", "target": "{messages[1][content]}"}
    pulling.pull(pull(tmp_path, text, **fields), tmp_path / "data")
    found = {
        (example.prompt, example.target)
        for split in ("train", "validation", "test")
        for example in pulled.read_examples("task", split, tmp_path / "data")
    }
    assert found == {(f"Q{n}", f"A{n}") for n in range(4)}


def test_the_command_refuses_such_a_file_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(tmp_path, '{"q": "x\\ud83d", "a": "y"}\n')
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "profiles" / "smoke.yaml").read_text()
    text = text.replace(
        "source: bundled-nlu",
        "source: {kind: local, path: train.jsonl, fields: {prompt: q, target: a}}",
    )
    (tmp_path / "params.yaml").write_text(text)
    dvc_workspace(tmp_path)
    said = refused(capsys, "pull")
    assert said.startswith("error: train.jsonl:1: field 'q' for 'prompt': character 2 is half a")
    assert not (tmp_path / "data").exists()
