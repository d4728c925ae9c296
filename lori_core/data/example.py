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
Split = Literal["train", "validation", "test"]
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
    """

    prompt: str
    target: str
    scorer: str = UNSCORED
    answer: str = ""
    kind: str = ""
    template: str = ""
    check: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of prompt and target."""
        text = canonical_json([self.prompt, self.target])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def row(self) -> dict[str, Any]:
        """Return the example as the JSON object of `data/<task>/<split>.jsonl`."""
        return {"id": self.id, **vars(self)}

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
            if not isinstance(value, str):
                raise DataError(f"{where}: field {name!r} must be text, got {shown(value)}")
            wrong = None if value.isprintable() else _NO_TEXT.search(value)
            if wrong:
                raise DataError(
                    f"{where}: field {name!r}: character {wrong.start() + 1} is "
                    f"\\u{ord(wrong[0]):04x}, which is no text; pull the data again"
                )
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
