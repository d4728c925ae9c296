"""Render a prompt with the tokenizer's chat template, and check the template before a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any

from lori_core.core.errors import ConfigError
from lori_core.data import chat_limits

_PROBE = "What is 17 + 25?"
_INSTEAD = "correct it (chat_template in the model's folder), or set alpaca or plain"
#: The date that templates see, constant so that a prompt has the same tokens on every day. It is
#: the default of Llama 3's templates.
_TODAY = datetime(2024, 7, 26)
DATE = _TODAY.strftime("%d %b %Y")
_CLOCK = "strftime_now"
#: The directives of strftime; `%-d` is `%d` without the leading zero.
_DIRECTIVES = [f"%{minus}{letter}" for minus in ("", "-") for letter in "aAbBcdDeFgGhHIjklmM"] + [
    f"%{minus}{letter}" for minus in ("", "-") for letter in "npPrRStTuUVwWxXyYzZf%"
]


def render_chat(prompt: str, system: str | None, tokenizer: Any) -> str:
    """Return a prompt rendered by the tokenizer's chat template, with the generation prompt.

    Args:
        prompt: the user turn.
        system: the system turn; None leaves it to the template's default. An empty one replaces
            that default, or is omitted if the template refuses an empty system turn.
        tokenizer: the model's tokenizer, with a chat template.

    Raises:
        ConfigError: the template refuses the system turn, or fails.
    """
    turns = with_system([{"role": "user", "content": prompt}], system, tokenizer)
    text: str = apply_template(turns, tokenizer, generation_prompt=True)
    return text


def with_system(turns: Sequence[Any], system: str | None, tokenizer: Any) -> list[Any]:
    """Return turns that begin with a system turn if they have none and `system` is set.

    Args:
        turns: the turns, each with `role` and `content`.
        system: as in `render_chat`.
        tokenizer: the model's tokenizer.
    """
    if turns[0]["role"] == "system":
        return list(turns)
    if system or (system == "" and _empty_system_fits(tokenizer, str(tokenizer.chat_template))):
        return [{"role": "system", "content": system}, *turns]
    return list(turns)


def check_chat(system: str | None, tokenizer: Any, where: str = "prompt.system") -> None:
    """Refuse a chat template that cannot render the run's prompts.

    Args:
        system: the system turn.
        tokenizer: the model's tokenizer.
        where: the key of the system turn, for messages.

    Raises:
        ConfigError: the template fails, does not terminate, omits the user turn, or refuses or
            omits a system turn that is not empty.
    """
    _check_limits(system, tokenizer)
    try:
        text = render_chat(_PROBE, system, tokenizer)
    except ConfigError as error:
        if not system or _without_system(tokenizer) is None:
            raise
        reason = f"refuses a system turn ({_first_line(error.__cause__)})"
        raise _no_system(system, reason, where) from error
    if _PROBE not in text:
        raise ConfigError(
            "prompt.template: the chat template of the model's tokenizer does not write the user's "
            f"text; {_INSTEAD}"
        )
    if system and text == _without_system(tokenizer):
        raise _no_system(system, "leaves a system turn out", where)


def _check_limits(system: str | None, tokenizer: Any) -> None:
    """Refuse a template that does not terminate, or takes too much memory."""
    user = [{"role": "user", "content": _PROBE}]
    chats = [user, *([[{"role": "system", "content": system}, *user]] if system else [])]
    try:
        template = str(tokenizer.get_chat_template())
    except Exception:  # `render_chat` raises the same error, and reports it
        return
    values = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    for turns in chats:
        why = chat_limits.fault(on_one_day(template), turns, {"date_string": DATE, **values})
        if why:
            raise ConfigError(
                "prompt.template: the chat template of the model's tokenizer cannot be used: "
                f"{why}; {_INSTEAD}"
            )


def _without_system(tokenizer: Any) -> str | None:
    """Return the rendered text without a system turn; None if the template fails."""
    try:
        return render_chat(_PROBE, None, tokenizer)
    except ConfigError:
        return None


def _no_system(system: str, why: str, where: str) -> ConfigError:
    excerpt = system if len(system) <= 60 else f"{system[:57]}..."
    return ConfigError(
        f"{where}: {excerpt!r}, but the chat template of the model's tokenizer {why}; set it "
        "to null, or put its text into the examples' prompts"
    )


def on_one_day(template: str) -> str:
    """Return a chat template whose `strftime_now` always returns midnight of 26 July 2024.

    A template that does not use it is returned unchanged.
    """
    if _CLOCK not in template:
        return template
    steps = "".join(f"|replace({at!r}, {_TODAY.strftime(at)!r})" for at in _DIRECTIVES)
    # The macro shadows the function of the same name. `trim_blocks` removes the line break after
    # it, so the template still starts at the beginning of a line.
    return f"{{% macro {_CLOCK}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"


@lru_cache(maxsize=8)
def _empty_system_fits(tokenizer: Any, _template: str) -> bool:
    """Return whether the template accepts an empty system turn."""
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": _PROBE}]
    try:
        apply_template(turns, tokenizer, generation_prompt=True)
    except ConfigError:
        return False
    return True


def apply_template(
    turns: Sequence[Any], tokenizer: Any, *, generation_prompt: bool, tokenize: bool = False
) -> Any:
    """Return a conversation rendered by the chat template, or its token ids.

    Args:
        turns: the turns, each with `role` and `content`.
        tokenizer: the model's tokenizer, with a chat template.
        generation_prompt: whether the beginning of the assistant's next turn follows.
        tokenize: whether to return token ids.

    Raises:
        ConfigError: the template fails.
    """
    with _template_errors():
        return tokenizer.apply_chat_template(
            list(turns),
            chat_template=on_one_day(tokenizer.get_chat_template()),
            date_string=DATE,
            tokenize=tokenize,
            add_generation_prompt=generation_prompt,
            **({"return_dict": False} if tokenize else {}),
        )


def marked_text(turns: Sequence[Any], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation rendered by a chat template with generation marks, and their parts.

    Returns:
        The text, and the beginning and end of each part in characters.

    Raises:
        ConfigError: the template fails.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    with _template_errors():
        (text,), (spans,) = render_jinja_template(
            conversations=[list(turns)],
            chat_template=on_one_day(tokenizer.get_chat_template()),
            return_assistant_tokens_mask=True,
            add_generation_prompt=False,
            date_string=DATE,
            **tokenizer.special_tokens_map,
        )
    return text, [(start, end) for start, end in spans]


@contextmanager
def _template_errors() -> Iterator[None]:
    """Report any error of a chat template, which is a program, in one line."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            "prompt.template: the chat template of the model's tokenizer fails "
            f"({type(error).__name__}: {_first_line(error)}); {_INSTEAD}"
        ) from error


def _first_line(error: BaseException | None) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]
