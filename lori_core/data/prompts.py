"""How an example becomes tokens: one rendering, the same in training and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lori_core.config import PromptSection
from lori_core.data.example import Example
from lori_core.errors import ConfigError

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and target; `cut` says whether something was cut to fit."""

    prompt: list[int]
    target: list[int]
    cut: bool

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


def render(prompt: str, section: PromptSection, tokenizer: Any) -> str:
    """Return the text the model reads, up to where its answer begins.

    Raises:
        ConfigError: for the chat template of a tokenizer that has none.
    """
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    template = section.template
    if template == "auto":
        template = "chat" if has_chat else "alpaca"
    if template == "plain":
        return prompt
    if template == "alpaca":
        return _ALPACA.format(prompt=prompt)
    if not has_chat:
        raise ConfigError("prompt.template: 'chat', but the model's tokenizer has no chat template")
    turns = [{"role": "user", "content": prompt}]
    if section.system is not None:
        turns.insert(0, {"role": "system", "content": section.system})
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text


def encode_prompt(
    prompt: str, section: PromptSection, tokenizer: Any, max_length: int
) -> tuple[list[int], bool]:
    """Tokenize a prompt; one that is too long loses words from the instruction's front.

    Returns:
        The token ids, and whether something was cut.
    """
    # A chat template writes its own special tokens; elsewhere the tokenizer adds the usual ones.
    text = render(prompt, section, tokenizer)
    special = not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))
    ids: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
    if len(ids) <= max_length:
        return ids, False
    inside = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    keep = max(0, len(inside) - (len(ids) - max_length))
    shorter = tokenizer.decode(inside[len(inside) - keep :] if keep else [])
    text = render(shorter, section, tokenizer)
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    return ids[-max_length:], True


def encode(example: Example, section: PromptSection, tokenizer: Any, max_length: int) -> Encoded:
    """Tokenize an example for training: prompt, then target and the end-of-sequence token.

    Raises:
        ConfigError: if `max_length` leaves no room for any target.
    """
    target = tokenizer(example.target, add_special_tokens=False)["input_ids"]
    target = [*target, tokenizer.eos_token_id]
    room = max_length - len(target)
    if room >= 1:
        prompt, cut = encode_prompt(example.prompt, section, tokenizer, room)
        return Encoded(prompt, target, cut)
    if max_length < 2:
        raise ConfigError(f"training.max_length: {max_length}; at least 2 tokens are needed")
    prompt, _ = encode_prompt(example.prompt, section, tokenizer, max_length // 2)
    return Encoded(prompt, target[: max_length - len(prompt)], True)


def encode_all(
    examples: Sequence[Example], section: PromptSection, tokenizer: Any, max_length: int
) -> list[Encoded]:
    """Tokenize a data set once, before training."""
    return [encode(example, section, tokenizer, max_length) for example in examples]
