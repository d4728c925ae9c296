"""Conversations that cannot be trained on: one line with the file and the row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bad_inputs.cases import put
from bad_inputs.commands import Commands
from lori_core.config import ModelSection
from lori_core.models import base_model

SOURCE = "source: bundled-nlu"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<s>' + message['role'] + '\\n' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}"
)
USER = {"role": "user", "content": "What?"}
ANSWER = {"role": "assistant", "content": "This."}
SYSTEM = {"role": "system", "content": "Be brief."}
GOOD = {"messages": [USER, ANSWER]}
CHATS: dict[str, Any] = {
    "no answer": [USER],
    "no turn": [],
    "system alone": [SYSTEM],
    "ends with the user": [USER, ANSWER, USER],
    "two users": [USER, USER, ANSWER],
    "two answers": [USER, ANSWER, ANSWER],
    "answer first": [ANSWER, USER, ANSWER],
    "system later": [USER, SYSTEM, ANSWER],
    "unknown role": [USER, ANSWER | {"role": "narrator"}],
    "no role": [USER, {"content": "This."}],
    "no content": [USER, {"role": "assistant"}],
    "empty answer": [USER, ANSWER | {"content": ""}],
    "number": [USER, ANSWER | {"content": 5}],
    "parts": [USER, ANSWER | {"content": [{"type": "image"}]}],
    "null": [USER, ANSWER | {"content": None}],
    "half a pair": [USER, ANSWER | {"content": "\ud83d"}],
    "tool turn": [USER, {"role": "tool", "content": "5"}, ANSWER],
    "tool calls": [USER, ANSWER | {"tool_calls": [{"name": "add"}]}],
    "reasoning": [USER, ANSWER | {"reasoning_content": "Hm."}],
    "weight": [USER, ANSWER | {"weight": 2}],
    "nothing learned": [USER, ANSWER | {"weight": 0}],
    "turn of text": ["What?", "This."],
    "text": "What? This.",
    "object": {"user": "What?"},
    "nothing": None,
}


@pytest.mark.parametrize("name", CHATS)
def test_a_conversation_that_cannot_be_learned_is_one_line(
    name: str, lori: Commands, project: Path
) -> None:
    rows = [GOOD, {"messages": CHATS[name]}]
    line = refused(lori, project, rows)
    assert "chat.jsonl:2" in line


@pytest.mark.parametrize("column", ["turns", "messages.0", ""])
def test_a_missing_column_is_one_line(column: str, lori: Commands, project: Path) -> None:
    assert column in refused(lori, project, [GOOD], column)


def refused(lori: Commands, project: Path, rows: list[Any], column: str = "messages") -> str:
    """Return the line with which `lori pull` refuses a file of conversations."""
    base = base_model.prepare(ModelSection(name_or_path="random:llama"))
    shutil.copytree(base, project / "model")
    (project / "model" / "chat_template.jinja").write_text(TEMPLATE)
    put(project / "chat.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    source = {"kind": "local", "path": "chat.jsonl", "messages": column}
    params = (project / "params.yaml").read_text()
    assert SOURCE in params
    params = params.replace(SOURCE, f"source: {json.dumps(source)}")
    (project / "params.yaml").write_text(params.replace("random:llama", "model"))
    return lori.run(["pull"], project, watched=project.parent).refusal()
