"""How an example becomes tokens: one way for training, scoring and serving.

A prompt and its target are tokenised apart, on purpose: generation and log-likelihoods begin where
the prompt's tokens end, so training must end the prompt at the same place. No merge of BPE reaches
over that boundary, and a tokenizer that begins every text with a space of its own (SentencePiece's
dummy prefix) begins each target with it, in training and scoring alike; decoding takes it away.

The tokenizer's post-processor never decides alone: some append an end-of-sequence token, after
which no model answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from lori_core.config import PromptSection
from lori_core.core.errors import ConfigError
from lori_core.data.chat import check_chat, render_chat
from lori_core.data.example import Example

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


def _template(section: PromptSection, tokenizer: Any) -> str:
    """Return which template is meant: chat, alpaca or plain."""
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if section.template == "auto":
        return "chat" if has_chat else "alpaca"
    if section.template == "chat" and not has_chat:
        raise ConfigError("prompt.template: 'chat', but the model's tokenizer has no chat template")
    return section.template


def render(prompt: str, section: PromptSection, tokenizer: Any) -> str:
    """Return the text the model reads, up to where its answer begins.

    Raises:
        ConfigError: for the chat template of a tokenizer that has none, or one that fails.
    """
    template = _template(section, tokenizer)
    if template == "chat":
        return render_chat(prompt, section.system, tokenizer)
    return _ALPACA.format(prompt=prompt) if template == "alpaca" else prompt


def check_template(section: PromptSection, tokenizer: Any) -> None:
    """Refuse a template that cannot write prompts as they are asked for.

    Raises:
        ConfigError: as `render` and `check_chat`; or for a system turn where the template has none.
    """
    template = _template(section, tokenizer)
    if template == "chat":
        check_chat(section.system, tokenizer)
    elif section.system:
        raise ConfigError(
            f"prompt.system: given, but the template {template} has no system turn; set it to "
            "null, or choose the template chat"
        )


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """Tokenize a text as it stands; nothing is added to it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def added_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer's post-processor puts before and after a text."""
    whole: list[int] = tokenizer("a")["input_ids"]
    text = text_ids("a", tokenizer)
    starts = range(len(whole) - len(text) + 1)
    start = next((at for at in starts if whole[at : at + len(text)] == text), 0)
    return whole[:start], whole[start + len(text) :]


def begun_ids(text: str, tokenizer: Any) -> list[int]:
    """Tokenize a text with what the tokenizer usually puts before it (BOS), and nothing behind.

    A text that begins with it, with or without space before, gets no second one.
    """
    ids, (front, _) = text_ids(text, tokenizer), added_ids(tokenizer)
    if front and front[0] in ids:
        at = ids.index(front[0])
        if ids[at : at + len(front)] == front and not tokenizer.decode(ids[:at]).strip():
            return ids
    return front + ids


def _prompt_ids(prompt: str, section: PromptSection, tokenizer: Any) -> list[int]:
    text = render(prompt, section, tokenizer)
    # A chat template writes its own special tokens.
    chat = _template(section, tokenizer) == "chat"
    return text_ids(text, tokenizer) if chat else begun_ids(text, tokenizer)


def template_length(section: PromptSection, tokenizer: Any) -> int:
    """Return how many tokens a prompt takes besides its words."""
    try:
        return len(_prompt_ids("", section, tokenizer))
    except ConfigError:  # some chat templates refuse an empty turn
        return len(_prompt_ids(".", section, tokenizer))


def encode_prompt(
    prompt: str, section: PromptSection, tokenizer: Any, max_length: int
) -> tuple[list[int], bool]:
    """Tokenize a prompt; one that is too long loses words from the instruction's front.

    With the chat template the tokens are those of
    `tokenizer.apply_chat_template(turns, add_generation_prompt=True)`; with the others, BOS stands
    before the text where the tokenizer puts it, and nothing after it. A cut prompt has the whole
    template, and every special token of it once; only where the template alone is too long
    (`limits.check` refuses that before a run), what follows its first special tokens loses its
    front.

    Returns:
        The token ids, and whether something was cut.
    """
    ids = _prompt_ids(prompt, section, tokenizer)
    if len(ids) <= max_length:
        return ids, False
    words = text_ids(prompt, tokenizer)
    keep = len(words)
    while keep > 0 and len(ids) > max_length:
        # The shortened text may take more tokens than were kept of it.
        keep = max(0, keep - (len(ids) - max_length))
        ids = _prompt_ids(_end(words, keep, tokenizer), section, tokenizer)
    if len(ids) > max_length:
        special = set(tokenizer.all_special_ids)
        front = list(takewhile(special.__contains__, ids))[:max_length]
        ids = front + ids[len(ids) - (max_length - len(front)) :]
    return ids, True


def _end(words: list[int], keep: int, tokenizer: Any) -> str:
    """Return the text of the last tokens; of a character that was cut through, nothing."""
    if not keep:
        return ""
    text: str = tokenizer.decode(words[-keep:], clean_up_tokenization_spaces=False)
    return text.lstrip("\N{REPLACEMENT CHARACTER}")


def encode(example: Example, section: PromptSection, tokenizer: Any, max_length: int) -> Encoded:
    """Tokenize an example for training: prompt, then target and the end-of-sequence token.

    A row that is too long loses words of the prompt; where the target leaves no room for the
    template, the prompt gets half of the row and the target loses its end.

    Raises:
        ConfigError: if `max_length` leaves no room for any target.
    """
    target = [*text_ids(example.target, tokenizer), tokenizer.eos_token_id]
    prompt = _prompt_ids(example.prompt, section, tokenizer)
    if len(prompt) + len(target) <= max_length:
        return Encoded(prompt, target, False)
    if max_length < 2:
        raise ConfigError(f"training.max_length: {max_length}; at least 2 tokens are needed")
    least = max(1, template_length(section, tokenizer))
    room = max_length - len(target)
    if room < least:
        room = min(max(max_length // 2, least), max_length - 1)
    prompt, cut = encode_prompt(example.prompt, section, tokenizer, room)
    left = max_length - len(prompt)
    return Encoded(prompt, target[:left], cut or len(target) > left)


def encode_all(
    examples: Sequence[Example], section: PromptSection, tokenizer: Any, max_length: int
) -> list[Encoded]:
    """Tokenize a data set once, before training."""
    return [encode(example, section, tokenizer, max_length) for example in examples]
