"""Check, while data is pulled, that the chat template can render its conversations."""

from __future__ import annotations

from typing import Any

from lori_core.config import PromptSection
from lori_core.data.conversations import check_tokens, encode_conversation
from lori_core.data.example import Example
from lori_core.data.prompts import check_chat_template

#: A length that no conversation has.
_WHOLE = 2**30


class ConversationCheck:
    """Refuses a conversation that cannot be encoded for training.

    The first `FIRST` conversations are checked, and the first of each sequence of roles, because a
    template depends on the roles more than on the texts; training encodes, and so checks, all.
    """

    FIRST, MOST = 100, 10_000

    def __init__(self, section: PromptSection, tokenizer: Any) -> None:
        self._section = section
        self._tokenizer = tokenizer
        self._checked = 0
        self._roles: set[tuple[str, ...]] = set()

    def __call__(self, example: Example, where: str) -> None:
        """Check an example; one that is no conversation passes.

        Raises:
            ConfigError: the prompt template is not the chat template.
            DataError: the conversation cannot be encoded; names `where`, its file and row.
        """
        if not example.messages:
            return
        roles = tuple(turn["role"] for turn in example.messages)
        if self._checked >= self.FIRST and (roles in self._roles or len(self._roles) >= self.MOST):
            return
        check_chat_template(self._section, self._tokenizer)
        row = encode_conversation(example.messages, self._section, self._tokenizer, _WHOLE, where)
        check_tokens(example.messages, self._section, self._tokenizer, row, where)
        self._checked += 1
        self._roles.add(roles)
