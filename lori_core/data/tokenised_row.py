"""A tokenised example."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoded:
    """A tokenised example.

    Attributes:
        prompt: the token ids of the prompt.
        target: the token ids of the target, with the end-of-sequence token; of a conversation, all
            from the first token of the first answer on.
        cut: whether prompt or target was truncated.
        unlearned: the places in `target` of tokens that the loss leaves out, which are those of
            the other turns of a conversation.
    """

    prompt: list[int]
    target: list[int]
    cut: bool
    unlearned: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)

    @property
    def supervised(self) -> int:
        """The number of tokens that the loss counts."""
        return len(self.target) - len(self.unlearned)

    def learned(self, place: int) -> bool:
        """Return whether the loss counts the token at a place of the row."""
        return place >= len(self.prompt) and place - len(self.prompt) not in self.unlearned
