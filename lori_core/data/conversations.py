"""Tokenise conversations for training, with the tokens of the assistant's turns marked as learned.

The tokens of a conversation are those of the tokenizer's `apply_chat_template`. The template's
generation marks (`{% generation %}`) show the assistant's turns. A template without marks is
rendered for each prefix of the conversation: a turn's text begins where the rendering of the turns
before it, with the generation prompt, ends. It ends with the special token after the turn's text
(`<|im_end|>`, `</s>`), like the target of other examples: a model stops there, so what a template
writes after that token is not learned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from lori_core.config import PromptSection
from lori_core.core.errors import DataError, InputError
from lori_core.data.chat import apply_template, marked_text, with_system
from lori_core.data.example import ASSISTANT, Turn
from lori_core.data.tokenised_row import Encoded

#: A generation mark of a chat template.
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
#: Beginning and end of a part of a text, in characters.
Span = tuple[int, int]


def encode_conversation(
    messages: Sequence[Turn], section: PromptSection, tokenizer: Any, max_length: int, where: str
) -> Encoded:
    """Return a conversation tokenised for training.

    `prompt` has the tokens before the first learned one. A row of more than `max_length` tokens
    loses its end; if its first answer begins after half of `max_length`, the tokens before that
    answer lose their front, except the leading special tokens.

    Args:
        messages: the turns.
        section: the prompt template; `system` is used for conversations without a system turn.
        tokenizer: the model's tokenizer, with a chat template.
        max_length: the most tokens of the row.
        where: the conversation's place, for errors.

    Raises:
        DataError: the chat template fails on the conversation, leaves out a turn's text, or its
            generation marks or renderings do not show where the assistant's turns are.
    """
    turns = with_system(messages, section.system, tokenizer)
    plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    text, spans = _assistant_spans(plain, tokenizer, where)
    answers = [turn for turn in turns if turn["role"] == ASSISTANT]
    learned = [span for turn, span in zip(answers, spans, strict=True) if turn.get("weight", 1)]
    ids, marked = _tokens(text, learned, tokenizer, where)
    first = marked.index(True)
    prompt, target = ids[:first], ids[first:]
    unlearned = frozenset(n for n, mark in enumerate(marked[first:]) if not mark)
    return _fitted(Encoded(prompt, target, False, unlearned), tokenizer, max_length)


def check_tokens(messages: Sequence[Turn], section: PromptSection, tokenizer: Any, row: Encoded,
                 where: str) -> None:  # fmt: skip
    """Refuse a row whose tokens are not those of `apply_chat_template`.

    Raises:
        DataError: they differ.
    """
    turns = with_system(messages, section.system, tokenizer)
    plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    ids = apply_template(plain, tokenizer, generation_prompt=False, tokenize=True)
    if list(ids) != row.prompt + row.target:
        raise DataError(
            f"{where}: the tokens of this conversation are not those of the tokenizer's "
            "apply_chat_template; use another chat template"
        )


def _assistant_spans(turns: Sequence[Turn], tokenizer: Any, where: str) -> tuple[str, list[Span]]:
    """Return a rendered conversation, and the part of it to learn for each assistant turn."""
    try:
        if _MARK.search(str(tokenizer.get_chat_template())):
            text, spans = marked_text(turns, tokenizer)
        else:
            text, spans = _by_prefixes(turns, tokenizer, where)
    except DataError:
        raise
    except InputError as error:
        raise DataError(f"{where}: {error}") from error
    answers = sum(turn["role"] == ASSISTANT for turn in turns)
    if len(spans) != answers:
        raise DataError(
            f"{where}: the chat template's generation marks name {len(spans)} parts, and the "
            f"conversation has {answers} assistant turns; correct the template"
        )
    for number, turn in enumerate(turns, start=1):
        if turn["content"].strip() not in text:
            raise DataError(
                f"{where}: the chat template leaves out or changes the text of turn {number} "
                f"({turn['role']}); use another template, or change the turn"
            )
    return text, spans


def _by_prefixes(turns: Sequence[Turn], tokenizer: Any, where: str) -> tuple[str, list[Span]]:
    """Return a rendered conversation and its assistant turns, by rendering its prefixes."""
    text = apply_template(turns, tokenizer, generation_prompt=False)
    special = _special(tokenizer)
    spans = []
    for number, turn in enumerate(turns):
        if turn["role"] != ASSISTANT:
            continue
        before = apply_template(turns[:number], tokenizer, generation_prompt=True)
        through = apply_template(turns[: number + 1], tokenizer, generation_prompt=False)
        common = _common(text, through)
        part = text[len(before) : common]
        if common < len(through):  # a template may close the whole conversation, as with EOS
            ends = [match.end() for match in special.finditer(part)]
            part = part[: ends[-1]] if ends else ""
        if not text.startswith(before) or turn["content"].strip() not in part:
            raise DataError(
                f"{where}: the chat template has no generation marks, and renders the first "
                f"{number + 1} turns differently alone and within the conversation, so the "
                "assistant's tokens cannot be found; add {% generation %} marks to the template"
            )
        spans.append((len(before), len(before) + _end_of_turn(part, special)))
    return text, spans


def _end_of_turn(part: str, special: re.Pattern[str]) -> int:
    """Return where the first of the special tokens at the end of a turn ends."""
    end = right = len(part)
    for match in reversed(list(special.finditer(part))):
        if part[match.end() : right].strip():
            break
        end, right = match.end(), match.start()
    return end


def _common(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    if one.startswith(other):
        return len(other)
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _special(tokenizer: Any) -> re.Pattern[str]:
    """Return a pattern of the tokenizer's special and added tokens."""
    names = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    visible = sorted((name for name in names if name.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, visible)) or r"(?!)")


def _tokens(
    text: str, spans: Sequence[Span], tokenizer: Any, where: str
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a text, and for each whether it has a character inside a span."""
    if not tokenizer.is_fast:
        raise DataError(
            f"{where}: conversations need a fast tokenizer, which says where in the text a token "
            "is; save the model's tokenizer as tokenizer.json"
        )
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoding["input_ids"]
    marked = [
        any(start < end and stop > begin for begin, end in spans)
        for start, stop in encoding["offset_mapping"]
    ]
    if True not in marked:
        raise DataError(f"{where}: no token of an assistant turn is to be learned")
    return ids, marked


def _fitted(row: Encoded, tokenizer: Any, max_length: int) -> Encoded:
    """Return a row with at most `max_length` tokens, of which at least one is learned."""
    if len(row) <= max_length:
        return row
    room = max(max_length - len(row.target), max_length // 2)
    prompt = row.prompt
    if len(prompt) > room:
        special = set(tokenizer.all_special_ids)
        front = list(takewhile(special.__contains__, prompt))[:room]
        rest = room - len(front)
        prompt = front + prompt[len(prompt) - rest :] if rest else front
    target = row.target[: max_length - len(prompt)]
    unlearned = frozenset(n for n in row.unlearned if n < len(target))
    return Encoded(prompt, target, True, unlearned)
