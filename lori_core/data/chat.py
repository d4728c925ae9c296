"""Chat templates: the tokenizer's own programs that write a conversation as one text."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from lori_core.core.errors import ConfigError
from lori_core.data import chat_limits

_PROBE = "What is 17 + 25?"
_INSTEAD = "correct it (chat_template in the model's folder), or set alpaca or plain"
#: The day that every chat is written on, so that a prompt has the same tokens on all days. It is
#: the one that the templates of Llama 3 take where nothing else is given.
_TODAY = datetime(2024, 7, 26)
DATE = _TODAY.strftime("%d %b %Y")
_CLOCK = "strftime_now"
#: `%-d` is `%d` without the zero in front.
_DIRECTIVES = [f"%{minus}{letter}" for minus in ("", "-") for letter in "aAbBcdDeFgGhHIjklmM"] + [
    f"%{minus}{letter}" for minus in ("", "-") for letter in "npPrRStTuUVwWxXyYzZf%"
]


def render_chat(prompt: str, system: str | None, tokenizer: Any) -> str:
    """Return a user's turn as the tokenizer's chat template writes it, up to the answer.

    Args:
        prompt: the user's turn.
        system: the system turn; None for none, which leaves the template's own default. An empty
            one stands in the place of that default, or is left out where the template refuses it.
        tokenizer: the model's, with a chat template.

    Raises:
        ConfigError: the template refuses the system turn, or fails.
    """
    turns = [{"role": "user", "content": prompt}]
    if system or (system == "" and _empty_system_fits(tokenizer, str(tokenizer.chat_template))):
        turns.insert(0, {"role": "system", "content": system})
    return _applied(turns, tokenizer)


def check_chat(system: str | None, tokenizer: Any) -> None:
    """Refuse a chat template that cannot write what it will be asked to.

    Raises:
        ConfigError: the template fails, leaves out the user's turn, or refuses or leaves out a
            system turn that is not empty.
    """
    _check_limits(system, tokenizer)
    try:
        text = render_chat(_PROBE, system, tokenizer)
    except ConfigError as error:
        if not system or _without_system(tokenizer) is None:
            raise
        raise _no_system(system, f"refuses a system turn ({_said(error.__cause__)})") from error
    if _PROBE not in text:
        raise ConfigError(
            "prompt.template: the chat template of the model's tokenizer does not write the user's "
            f"text; {_INSTEAD}"
        )
    if system and text == _without_system(tokenizer):
        raise _no_system(system, "leaves a system turn out")


def _check_limits(system: str | None, tokenizer: Any) -> None:
    """Refuse a template that does not end, or takes too much memory."""
    user = [{"role": "user", "content": _PROBE}]
    chats = [user, *([[{"role": "system", "content": system}, *user]] if system else [])]
    try:
        template = str(tokenizer.get_chat_template())
    except Exception:  # left to `render_chat`, which says what is wrong with it
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
    """Return what the template writes without a system turn; None where it fails."""
    try:
        return render_chat(_PROBE, None, tokenizer)
    except ConfigError:
        return None


def _no_system(system: str, why: str) -> ConfigError:
    shown = system if len(system) <= 60 else f"{system[:57]}..."
    return ConfigError(
        f"prompt.system: {shown!r}, but the chat template of the model's tokenizer {why}; set it "
        "to null, or put its text into the examples' prompts"
    )


def on_one_day(template: str) -> str:
    """Return a chat template whose `strftime_now` is always 26 July 2024, at midnight.

    One that does not ask for the date is returned as it is.
    """
    if _CLOCK not in template:
        return template
    steps = "".join(f"|replace({at!r}, {_TODAY.strftime(at)!r})" for at in _DIRECTIVES)
    # A macro hides the function of the same name. The last line break is trimmed: the template
    # begins a line, as it does alone.
    return f"{{% macro {_CLOCK}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"


@lru_cache(maxsize=8)
def _empty_system_fits(tokenizer: Any, _template: str) -> bool:
    """Say whether the template takes an empty system turn."""
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": _PROBE}]
    try:
        _applied(turns, tokenizer)
    except ConfigError:
        return False
    return True


def _applied(turns: list[dict[str, str]], tokenizer: Any) -> str:
    try:
        template = on_one_day(tokenizer.get_chat_template())
        text: str = tokenizer.apply_chat_template(
            turns,
            chat_template=template,
            date_string=DATE,
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # a template is a program: whatever it raises, it is at fault
        raise ConfigError(
            "prompt.template: the chat template of the model's tokenizer fails "
            f"({type(error).__name__}: {_said(error)}); {_INSTEAD}"
        ) from error
    return text


def _said(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
