"""Render and tokenise prompts and targets, in the same way for training, scoring and serving.

A prompt and its target are tokenised separately: generation and log-likelihoods start where the
prompt's tokens end, so in training the prompt must end at the same token. No BPE merge crosses that
boundary. A tokenizer that adds a space before each text (SentencePiece's dummy prefix) adds it
before each target, in training and in scoring; decoding removes it.

The tokens that a tokenizer's post-processor adds are not used as they are: some append an
end-of-sequence token, after which a model does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from lori_core.config import PromptSection
from lori_core.core.errors import ConfigError
from lori_core.data.chat import check_chat, render_chat
from lori_core.data.conversations import encode_conversation
from lori_core.data.example import Example
from lori_core.data.tokenised_row import Encoded

__all__ = [
    "Encoded", "added_ids", "check_template", "encode", "encode_all", "encode_prompt",
    "ids_with_bos", "render", "template_length", "text_ids",
]  # fmt: skip

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)


def _template(section: PromptSection, tokenizer: Any) -> str:
    """Return the template's name with `auto` resolved: chat, alpaca or plain."""
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if section.template == "auto":
        return "chat" if has_chat else "alpaca"
    if section.template == "chat" and not has_chat:
        raise ConfigError("prompt.template: 'chat', but the model's tokenizer has no chat template")
    return section.template


def render(prompt: str, section: PromptSection, tokenizer: Any) -> str:
    """Return a prompt rendered by the prompt template; the model's answer follows it.

    Raises:
        ConfigError: the tokenizer has no chat template although one is set, or it fails.
    """
    template = _template(section, tokenizer)
    if template == "chat":
        return render_chat(prompt, section.system, tokenizer)
    return _ALPACA.format(prompt=prompt) if template == "alpaca" else prompt


def check_template(section: PromptSection, tokenizer: Any, where: str = "prompt.system") -> None:
    """Refuse a prompt template that cannot render the run's prompts.

    Args:
        section: the prompt template.
        tokenizer: the model's tokenizer.
        where: the key of `section.system`, for messages.

    Raises:
        ConfigError: as `render` and `check_chat`; or a system turn is set and the template has
            none.
    """
    template = _template(section, tokenizer)
    if template == "chat":
        check_chat(section.system, tokenizer, where)
    elif section.system:
        raise ConfigError(
            f"{where}: given, but the template {template} has no system turn; set it to "
            "null, or choose the template chat"
        )


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """Return the token ids of a text, without added special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def added_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids of the special tokens that the post-processor adds before and after a text."""
    whole: list[int] = tokenizer("a")["input_ids"]
    text = text_ids("a", tokenizer)
    starts = range(len(whole) - len(text) + 1)
    start = next((at for at in starts if whole[at : at + len(text)] == text), 0)
    return whole[:start], whole[start + len(text) :]


def ids_with_bos(text: str, tokenizer: Any) -> list[int]:
    """Return the token ids of a text after the special tokens that precede it (BOS); none follow.

    A text that already starts with them, possibly after space, gets no second ones.
    """
    ids, (front, _) = text_ids(text, tokenizer), added_ids(tokenizer)
    if front and front[0] in ids:
        at = ids.index(front[0])
        if ids[at : at + len(front)] == front and not tokenizer.decode(ids[:at]).strip():
            return ids
    return front + ids


def _prompt_ids(prompt: str, section: PromptSection, tokenizer: Any) -> list[int]:
    """Return the token ids of a rendered prompt, without truncation."""
    text = render(prompt, section, tokenizer)
    # A chat template contains its own special tokens.
    chat = _template(section, tokenizer) == "chat"
    return text_ids(text, tokenizer) if chat else ids_with_bos(text, tokenizer)


def template_length(section: PromptSection, tokenizer: Any) -> int:
    """Return the number of tokens of the prompt template itself."""
    try:
        return len(_prompt_ids("", section, tokenizer))
    except ConfigError:  # some chat templates refuse an empty turn
        return len(_prompt_ids(".", section, tokenizer))


def encode_prompt(
    prompt: str, section: PromptSection, tokenizer: Any, max_length: int
) -> tuple[list[int], bool]:
    """Return the token ids of a rendered prompt; a long one loses the front of its text.

    With the chat template, the tokens are those of
    `tokenizer.apply_chat_template(turns, add_generation_prompt=True)`; with the others, BOS comes
    before the text if the tokenizer adds it, and nothing follows. A truncated prompt keeps the
    whole template with all special tokens. Only if the template alone is too long (`limits.check`
    refuses that before a run), the tokens after its leading special tokens lose their front.

    Args:
        prompt: the user turn.
        section: the prompt template.
        tokenizer: the model's tokenizer.
        max_length: the most tokens to return.

    Returns:
        The token ids, and whether the prompt was truncated.
    """
    ids = _prompt_ids(prompt, section, tokenizer)
    if len(ids) <= max_length:
        return ids, False
    words = text_ids(prompt, tokenizer)
    keep = len(words)
    while keep > 0 and len(ids) > max_length:
        # The shortened text may tokenise to more tokens than were kept.
        keep = max(0, keep - (len(ids) - max_length))
        ids = _prompt_ids(_end(words, keep, tokenizer), section, tokenizer)
    if len(ids) > max_length:
        special = set(tokenizer.all_special_ids)
        front = list(takewhile(special.__contains__, ids))[:max_length]
        ids = front + ids[len(ids) - (max_length - len(front)) :]
    return ids, True


def _end(words: list[int], keep: int, tokenizer: Any) -> str:
    """Return the text of the last `keep` tokens, without a partial character at its start."""
    if not keep:
        return ""
    text: str = tokenizer.decode(words[-keep:], clean_up_tokenization_spaces=False)
    return text.lstrip("\N{REPLACEMENT CHARACTER}")


def check_chat_template(section: PromptSection, tokenizer: Any) -> None:
    """Refuse a prompt template that cannot render conversations.

    Raises:
        ConfigError: it is not the tokenizer's chat template.
    """
    template = _template(section, tokenizer)
    if template != "chat":
        raise ConfigError(
            f"prompt.template: {template}, but conversations (messages) need the chat template of "
            "the model's tokenizer; name a base model that has one, or save one as "
            "chat_template.jinja in the model's folder"
        )


def _too_short(max_length: int) -> ConfigError:
    return ConfigError(f"training.max_length: {max_length}; at least 2 tokens are needed")


def encode(example: Example, section: PromptSection, tokenizer: Any, max_length: int) -> Encoded:
    """Return an example tokenised for training: prompt, target and the end-of-sequence token.

    If the row is too long, the prompt's text is truncated; if the target leaves no room for the
    template, the prompt gets half of the row and the target is truncated at its end.

    A conversation is encoded by `conversations.encode_conversation`.

    Raises:
        ConfigError: `max_length` leaves no room for any target; or the example is a conversation
            and the prompt template is not the chat template.
        DataError: as `encode_conversation`.
    """
    if example.messages:
        if max_length < 2:
            raise _too_short(max_length)
        check_chat_template(section, tokenizer)
        where = f"example {example.id}"
        return encode_conversation(example.messages, section, tokenizer, max_length, where)
    target = [*text_ids(example.target, tokenizer), tokenizer.eos_token_id]
    prompt = _prompt_ids(example.prompt, section, tokenizer)
    if len(prompt) + len(target) <= max_length:
        return Encoded(prompt, target, False)
    if max_length < 2:
        raise _too_short(max_length)
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
    """Return all examples tokenised for training; see `encode`."""
    return [encode(example, section, tokenizer, max_length) for example in examples]
