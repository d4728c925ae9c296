"""Convert the conversations of chat data sets to examples.

A turn is `{role, content}`, as in OpenAI's files, or `{from, value}`, as in ShareGPT's. A content
may be a list of parts of the type `text`. `weight: 0` marks an answer that is not learned, as in
OpenAI's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lori_core.config import SourceSection
from lori_core.config.templates import Field, read_template
from lori_core.core.errors import DataError, shown
from lori_core.core.files import json_input
from lori_core.data.example import ASSISTANT, SYSTEM, USER, Turn
from lori_core.data.text import storable, value_at, visible

_ROLES = {
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
    "system": SYSTEM,
}
_TOOLS = {
    "tool",
    "tools",
    "function",
    "function_call",
    "function_response",
    "observation",
    "ipython",
}
#: Keys of a turn whose values a chat template would render, but training here does not read.
_UNREAD = ("tool_calls", "function_call", "reasoning_content", "thinking", "audio", "refusal")


def convert(record: Mapping[str, Any], source: SourceSection, where: str) -> dict[str, Any]:
    """Return the fields of the example of a record with a conversation.

    `messages` has the turns, `prompt` the first user turn and `target` all answers to learn.

    Raises:
        DataError: the column is missing or holds no conversation, a turn has an unknown role, a
            tool's turn or no text, the roles are in the wrong order, or there is no answer to
            learn.
    """
    column = str(source.messages)
    (field,) = read_template(column)
    assert isinstance(field, Field)  # noqa: S101 - `SourceSection.check` refuses templates
    value = value_at(field, record, f"field {column!r} for 'messages'", where)
    if isinstance(value, str):  # a CSV file holds it as JSON
        try:
            value = json_input.loads(value)
        except json_input.JSONError as error:
            raise DataError(f"{where}: field {column!r} for 'messages': {error}") from None
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{where}: field {column!r} for 'messages' is {shown(value)}; a list of turns with "
            "role and content, or from and value, is needed"
        )
    turns = [_turn(turn, f"{where}: turn {number}") for number, turn in enumerate(value, start=1)]
    _check_order(turns, where)
    answers = [turn for turn in turns if turn["role"] == ASSISTANT and "weight" not in turn]
    if not answers:
        raise DataError(f"{where}: all assistant turns have the weight 0, so none is to be learned")
    first = next(turn for turn in turns if turn["role"] == USER)
    target = "\n\n".join(turn["content"] for turn in answers)
    return {"prompt": first["content"], "target": target, "messages": turns}


def _turn(turn: Any, where: str) -> Turn:
    """Return a turn with `role`, `content`, and `weight` if it is 0."""
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} is {shown(turn)}; an object with role and content is needed")
    names = ("role", "content") if "role" in turn else ("from", "value")
    missing = [name for name in names if name not in turn]
    if missing:
        raise DataError(
            f"{where} has no {missing[0]!r} (it has: {', '.join(map(str, turn)):.100}); a turn has "
            "role and content, or from and value"
        )
    name, content = (turn[key] for key in names)
    tools = next((key for key in _UNREAD if turn.get(key)), None)
    if tools or (isinstance(name, str) and name.lower() in _TOOLS):
        what = f"has {tools!r}" if tools else f"has the role {name!r}"
        raise DataError(
            f"{where} {what}, which training does not read; remove such conversations, or write "
            "their text into the content of user and assistant turns"
        )
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise DataError(f"{where} has the role {shown(name)} (allowed: {', '.join(_ROLES)})")
    text = storable(_text(content, where), "the content", where)
    if not visible(text) and role != SYSTEM:
        raise DataError(f"{where} ({role}) is empty; write its text, or remove the conversation")
    weight = turn.get("weight", 1)
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise DataError(f"{where} has the weight {shown(weight)}; allowed are 0 and 1")
    unlearned = weight == 0 and role == ASSISTANT
    return {"role": role, "content": text, **({"weight": 0} if unlearned else {})}


def _text(content: Any, where: str) -> str:
    """Return the text of a turn's content."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"{where} has the content {shown(content)}; a text is needed")
    parts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or part.get("type", "text") != "text":
            raise DataError(f"{where} has a part that is no text: {shown(part)}; remove it")
        parts.append(text)
    return "".join(parts)


def _check_order(turns: list[Turn], where: str) -> None:
    """Refuse turns that are not user and assistant in turn, after an optional system turn."""
    if not any(turn["role"] == ASSISTANT for turn in turns):
        raise DataError(f"{where}: the conversation has no assistant turn, so nothing to learn")
    start = 1 if turns[0]["role"] == SYSTEM else 0
    for number, turn in enumerate(turns[start:]):
        expected = (USER, ASSISTANT)[number % 2]
        if turn["role"] != expected:
            raise DataError(
                f"{where}: turn {start + number + 1} is a turn of {turn['role']}, expected "
                f"{expected}: user and assistant alternate, after at most one system turn"
            )
    if turns[-1]["role"] != ASSISTANT:
        raise DataError(
            f"{where}: the last turn is a turn of {turns[-1]['role']}, which nobody answers; "
            "remove it, or add the answer"
        )
