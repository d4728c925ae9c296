"""Conversations of chat data sets, in the forms in which they are published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers_like
from data.sources.test_pulling import local, params
from data.test_conversations import CHAT

from lori_core.core.errors import DataError, InputError, LoriError
from lori_core.data import pulled
from lori_core.data.conversation_check import ConversationCheck
from lori_core.data.example import Example
from lori_core.data.sources import pulling

SHAREGPT = {
    "id": "x7_0",
    "conversations": [
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello."},
        {"from": "human", "value": "Bye"},
        {"from": "gpt", "value": "Bye."},
    ],
}
OPENAI = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": "Hello.", "weight": 0, "tool_calls": None},
        {"role": "user", "content": "Bye", "name": "Eve"},
        {"role": "assistant", "content": "Bye.", "weight": 1},
    ]
}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye."},
]


def pull(folder: Path, row: dict[str, Any], column: str, name: str = "chat.jsonl") -> list[Example]:
    """Return the examples of a file with two conversations."""
    key, turns = next(iter((k, v) for k, v in row.items() if isinstance(v, list)))
    other = json.loads(json.dumps(turns).replace("Hi", "Hey").replace('"H"', '"Ho"'))
    rows = [row, row | {key: other}]
    folder.mkdir(exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = local(folder, files={"train": name}, messages=column)
    pulling.pull(params(source), folder / "data")
    both = [pulled.read_examples("task", split, folder / "data") for split in ("train", "test")]
    return sorted((e for each in both for e in each), key=lambda e: -len(e.prompt))


def test_sharegpt_conversations_are_read(tmp_path: Path) -> None:
    example = pull(tmp_path, SHAREGPT, "conversations")[1]
    assert example.messages == TURNS
    assert (example.prompt, example.target) == ("Hi", "Hello.\n\nBye.")


def test_openai_conversations_are_read_with_their_weights(tmp_path: Path) -> None:
    example = pull(tmp_path, OPENAI, "messages")[1]
    kept = [TURNS[0], TURNS[1] | {"weight": 0}, *TURNS[2:]]
    assert example.messages == [{"role": "system", "content": "Be kind."}, *kept]
    assert (example.prompt, example.target) == ("Hi", "Bye.")


def test_conversations_are_read_from_parquet_and_nested_columns(tmp_path: Path) -> None:
    assert pull(tmp_path / "a", {"messages": TURNS}, "messages", "c.parquet")[1].messages == TURNS
    nested = {"data": {"turns": TURNS}}
    (tmp_path / "c.jsonl").write_text(
        json.dumps(nested) + "\n" + json.dumps(nested).replace("Hi", "Hey") + "\n"
    )
    source = local(tmp_path / "c.jsonl", messages="data.turns")
    pulling.pull(params(source), tmp_path / "data")
    assert len(pulled.read_examples("task", "train", tmp_path / "data")[0].messages) == 4


def test_conversations_are_read_from_csv_as_json(tmp_path: Path) -> None:
    text = json.dumps(TURNS).replace('"', '""')
    (tmp_path / "c.csv").write_text(f'messages\n"{text}"\n"{text.replace("Hi", "Hey")}"\n')
    pulling.pull(params(local(tmp_path / "c.csv", messages="messages")), tmp_path / "data")
    assert len(pulled.read_examples("task", "test", tmp_path / "data")[0].messages) == 4


def turn(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ASK, SAY = turn("user"), turn("assistant")
BAD: list[tuple[Any, str]] = [
    ([ASK], "the conversation has no assistant turn"),
    ([], r"field 'messages' for 'messages' is \[\]"),
    (None, "field 'messages' for 'messages' is None; a list of turns"),
    ("hello", "field 'messages' for 'messages': not valid JSON"),
    ({"role": "user"}, "field 'messages' for 'messages' is .*; a list of turns with role"),
    ([ASK, 5], "turn 2 is 5; an object"),
    ([ASK, SAY, SAY], "turn 3 is a turn of assistant, expected user"),
    ([ASK, ASK, SAY], "turn 2 is a turn of user, expected assistant"),
    ([SAY, ASK, SAY], "turn 1 is a turn of assistant, expected user"),
    ([ASK, SAY, ASK], "the last turn is a turn of user, which nobody answers"),
    ([ASK, turn("system"), SAY], "turn 2 is a turn of system, expected assistant"),
    ([turn("system"), turn("system"), ASK, SAY], "turn 2 is a turn of system, expected user"),
    ([ASK, turn("tool"), SAY], "turn 2 has the role 'tool', which training does not read"),
    ([ASK, SAY | {"tool_calls": [1]}], "turn 2 has 'tool_calls', which training does not read"),
    ([ASK, turn("critic")], r"turn 2 has the role 'critic' \(allowed: user, human, assistant"),
    ([ASK, turn("assistant", "")], r"turn 2 \(assistant\) is empty"),
    ([ASK, turn("assistant", None)], "turn 2 has the content None; a text is needed"),
    ([turn("user", [{"type": "image_url"}]), SAY], "turn 1 has a part that is no text"),
    ([ASK, SAY | {"weight": 0}], "all assistant turns have the weight 0"),
    ([ASK, SAY | {"weight": 0.5}], "turn 2 has the weight 0.5; allowed are 0 and 1"),
    ([{"role": "user", "text": "x"}, SAY], r"turn 1 has no 'content' \(it has: role, text\)"),
    ([{"name": "user", "text": "x"}, SAY], "turn 1 has no 'from'"),
    ([ASK, turn("assistant", "a\0")], "turn 2: the content: character 2 is null"),
]


@pytest.mark.parametrize(("messages", "message"), BAD)
def test_a_bad_conversation_is_refused_by_file_and_row(
    messages: Any, message: str, tmp_path: Path
) -> None:
    lines = [{"messages": [ASK, SAY]}, {"messages": messages}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=rf"c.jsonl:2: {message}") as error:
        pulling.pull(params(local(tmp_path / "c.jsonl", messages="messages")), tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fields": {"prompt": "a", "target": "b"}}, "fields: conversations .* have no fields"),
        ({"scorer": "number"}, "scorer: conversations .* have no scorer"),
        ({"format": "gsm8k"}, "format: conversations .* have no format"),
        ({"messages": "{messages}"}, "messages: '{messages}': name a field, without braces"),
        ({"kind": "bundled", "name": "nlu", "path": None}, "messages: only local and hub sources"),
    ],
)
def test_other_keys_of_a_source_do_not_go_with_conversations(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"tasks\.task\.source\.{message}"):
        pulling.pull(params(local(tmp_path, messages="messages") | more), tmp_path / "data")


def test_a_conversation_that_the_template_cannot_render_is_refused_while_pulling(
    tmp_path: Path,
) -> None:
    system = [turn("system", "Be kind."), ASK, SAY]
    lines = [{"messages": [ASK, SAY]}, {"messages": system}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = local(tmp_path / "c.jsonl", messages="messages")
    check = ConversationCheck(CHAT, tokenizers_like.gemma())
    with pytest.raises(
        DataError, match=r"c.jsonl:2: prompt.template: .* System role not supported"
    ):
        pulling.pull(params(source), tmp_path / "data", check=check)
    bare = ConversationCheck(CHAT.model_copy(update={"template": "auto"}), tokenizers_like.gpt2())
    with pytest.raises(
        LoriError, match=r"prompt.template: alpaca, but conversations .messages. ne"
    ):
        pulling.pull(params(source), tmp_path / "data", check=bare)
    assert not (tmp_path / "data").exists()


def test_conversations_that_begin_alike_are_in_one_split(tmp_path: Path) -> None:
    other = [TURNS[0], turn("assistant", "Other"), TURNS[2], turn("assistant", "Ciao")]
    lines = {"train": [other, TURNS, TURNS, [turn("user", "New"), SAY]], "test": [TURNS]}
    lines["validation"] = [[turn("user", "Old"), SAY]]
    for split, talks in lines.items():
        text = "".join(json.dumps({"messages": talk}) + "\n" for talk in talks)
        (tmp_path / f"{split}.jsonl").write_text(text)
    said = pulling.pull(params(local(tmp_path, messages="messages")), tmp_path / "data")
    assert said == ["task: 1 train, 1 validation, 1 test (0 duplicates, 3 leaks removed)"]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (5, "field 'messages' must be a list"),
        ([5], "turn 1 of 'messages' must have role and content"),
        ([{"role": "user", "content": 5}], "turn 1 of 'messages' must be text"),
        ([ASK], "the roles of 'messages' must be user and assistant in turn"),
        ([ASK, SAY | {"weight": 2}], "turn 2 of 'messages' has the weight 2"),
        ([ASK, SAY | {"x": 2}], "turn 2 of 'messages' must have role and content"),
    ],
)
def test_pulled_conversations_that_were_damaged_are_refused(messages: Any, message: str) -> None:
    row = {"prompt": "x", "target": "x", "messages": messages}
    with pytest.raises(DataError, match=rf"^data:1: {message}"):
        Example.from_row(row, "data:1")


def test_an_example_without_a_conversation_is_written_as_before() -> None:
    row = Example("a", "b").row()
    assert "messages" not in row
    assert row["id"] == hashlib.sha256(b'["a","b"]').hexdigest()[:16]
