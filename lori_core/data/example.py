"""The schema of an example; every source is converted to it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lori_core.core.errors import DataError, shown
from lori_core.core.files.atomic import canonical_json
from lori_core.registries.scorer import UNSCORED, scorer_names

#: A null character or an unpaired surrogate; tokenizers cannot read them.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
#: The roles of a conversation's turns; a system turn comes first, if there is one.
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
#: A turn of a conversation: `role`, `content`, and `weight` 0 if an answer is not to be learned.
Turn = dict[str, Any]
Split = Literal["train", "validation", "test"]
_TURN_KEYS = {"role", "content", "weight"}
SPLITS: tuple[str, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """A prompt, its target, and how to judge an output.

    Attributes:
        prompt: the user turn, without a prompt template.
        target: the answer to learn; may be empty in a test split.
        scorer: `choice` compares the first `true|false|answerN|…` of the output with `answer`;
            `number` compares the final number; `code` runs `check["tests"]` on the function;
            `refusal` looks for a refusal and compares with `answer`, `refuse` or `comply`;
            `none` is for training only.
        answer: the gold answer as text.
        kind: the subset inside the task, for breakdowns (`boolean`, `harmful`, `humaneval`, …).
        template: the template that the example was generated from; no template is in two splits.
        check: further data of the scorer; for `code`: `prompt` (the source up to the function's
            body), `entry_point` and `tests` (a source that defines `check(candidate)`).
        messages: the turns of a conversation, whose assistant turns are learned; `prompt` is then
            the first user turn and `target` all learned answers. Empty for other examples.
    """

    prompt: str
    target: str
    scorer: str = UNSCORED
    answer: str = ""
    kind: str = ""
    template: str = ""
    check: dict[str, str] = field(default_factory=dict)
    messages: list[Turn] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of prompt and target, or of a conversation."""
        text = canonical_json(self.messages or [self.prompt, self.target])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def row(self) -> dict[str, Any]:
        """Return the example as the JSON object of `data/<task>/<split>.jsonl`."""
        row = {"id": self.id, **vars(self)}
        if not self.messages:
            del row["messages"]
        return row

    @classmethod
    def from_row(cls, row: Any, where: str) -> Example:
        """Return the example of a row that `row` returned.

        Args:
            row: the parsed JSON.
            where: the row's file and line, for errors.

        Raises:
            DataError: the row is not an example.
        """
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}")
        values = {name: value for name, value in row.items() if name != "id"}
        for name in ("prompt", "target", "answer", "kind", "template"):
            value = values.get(name, None if name in ("prompt", "target") else "")
            _check_text(value, f"{where}: field {name!r}")
        _check_turns(values.get("messages", []), where)
        check = values.get("check", {})
        if not isinstance(check, dict) or not all(isinstance(v, str) for v in check.values()):
            raise DataError(
                f"{where}: field 'check' must be an object of texts, got {shown(check)}"
            )
        scorer = values.get("scorer", UNSCORED)
        if not isinstance(scorer, str) or scorer not in scorer_names():
            raise DataError(
                f"{where}: scorer {shown(scorer)} is unknown (allowed: {', '.join(scorer_names())})"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise DataError(f"{where}: {error}") from None


def _check_text(value: Any, what: str) -> None:
    """Refuse a value that is not a text that tokenizers can read."""
    if not isinstance(value, str):
        raise DataError(f"{what} must be text, got {shown(value)}")
    wrong = None if value.isprintable() else _NO_TEXT.search(value)
    if wrong:
        raise DataError(
            f"{what}: character {wrong.start() + 1} is \\u{ord(wrong[0]):04x}, which is no text; "
            "pull the data again"
        )


def _check_turns(messages: Any, where: str) -> None:
    """Refuse a conversation that no pull wrote."""
    if not isinstance(messages, list):
        raise DataError(f"{where}: field 'messages' must be a list, got {shown(messages)}")
    roles = []
    for number, turn in enumerate(messages, start=1):
        what = f"{where}: turn {number} of 'messages'"
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys() <= _TURN_KEYS:
            raise DataError(f"{what} must have role and content, got {shown(turn)}")
        _check_text(turn["content"], what)
        if turn.get("weight", 0) != 0:
            raise DataError(f"{what} has the weight {shown(turn['weight'])}; only 0 is stored")
        roles.append(turn["role"])
    dialogue = roles[1:] if roles[:1] == [SYSTEM] else roles
    if messages and (not dialogue or dialogue != [USER, ASSISTANT] * (len(dialogue) // 2)):
        raise DataError(
            f"{where}: the roles of 'messages' must be user and assistant in turn after an "
            f"optional system turn, got {shown(roles)}; pull the data again"
        )
