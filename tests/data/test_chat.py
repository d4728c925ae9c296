"""Chat templates that refuse, fail, or leave out what they are given."""

import datetime
from typing import Any

import pytest
from tokenizers_like import GEMMA, LIKE, NEWLINE, QWEN, gemma, llama2, llama3, mistral, qwen
from transformers.utils import chat_template_utils

from lori_core.config import PromptSection
from lori_core.core.errors import ConfigError
from lori_core.data.chat import on_one_day, render_chat
from lori_core.data.prompts import check_template, encode_prompt, render

NO_EMPTY = (
    "{% for message in messages %}{% if not message['content'] %}"
    "{{ raise_exception('content must not be empty') }}{% endif %}"
    "[{{ message['role'] }}: {{ message['content'] }}]{% endfor %}"
)
USER_ONLY = "{% for m in messages if m['role'] == 'user' %}<{{ m['content'] }}>{% endfor %}"
PARTS = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"

LLAMA32 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{%- for message in messages %}
    {{- message['role'] + ": " + message['content'] | trim + "\n" }}
{%- endfor %}
"""
ASKS_ALWAYS = (
    "{% macro day() %}{{ strftime_now(format='%Y-%m-%d') }}{% endmacro %}"
    "{% for m in messages %}{% set now = strftime_now('%A, %-d %B %y, %H:%M') %}"
    "{{ day() }} ({{ now }}): {{ m['content'] }}{% endfor %}"
)
DAY = "\nx07/26/24%Hi"


def section(system: str | None = None, template: str = "auto") -> PromptSection:
    return PromptSection.model_validate({"template": template, "system": system})


def said(tokenizer: Any, chosen: PromptSection) -> str:
    with pytest.raises(ConfigError) as refused:
        check_template(chosen, tokenizer)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "tokenizer",
    [gemma(), mistral(), qwen(template=NO_EMPTY)],
    ids=["gemma", "mistral", "nothing empty"],
)
def test_an_empty_system_turn_is_left_out_where_the_template_refuses_it(tokenizer: Any) -> None:
    check_template(section(""), tokenizer)
    assert render("Hi", section(""), tokenizer) == render("Hi", section(None), tokenizer)


@pytest.mark.parametrize("tokenizer", [llama2(), llama3(), qwen()], ids=["2", "3", "qwen"])
def test_an_empty_system_turn_stays_where_the_template_takes_it(tokenizer: Any) -> None:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}]
    expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    check_template(section(""), tokenizer)
    assert render("Hi", section(""), tokenizer) == expected


def test_an_empty_system_turn_stands_in_the_place_of_the_default() -> None:
    assert "helpful" in render_chat("Hi", None, qwen())
    assert render_chat("Hi", "", qwen()).startswith("<|im_start|>system\n<|im_end|>\n")


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (gemma(), r"refuses a system turn (System role not supported)"),
        (mistral(), r"refuses a system turn (Conversation roles must alternate user/assistant/"),
        (qwen(template=USER_ONLY), "leaves a system turn out"),
    ],
    ids=["gemma", "mistral", "left out"],
)
def test_a_system_turn_that_would_not_be_read_is_refused(tokenizer: Any, why: str) -> None:
    message = said(tokenizer, section("Be brief."))
    assert message.startswith("prompt.system: 'Be brief.', but the chat template of the model's")
    assert why in message
    assert "set it to null" in message


@pytest.mark.parametrize("name", ["alpaca", "plain", "auto"])
def test_a_system_turn_needs_a_chat_template(name: str) -> None:
    tokenizer = qwen(template=None)
    for system in ("", None):
        check_template(section(system, name), tokenizer)
    assert "has no system turn" in said(tokenizer, section("Be brief.", name))


@pytest.mark.parametrize("system", [None, "", "Be brief."])
@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('not\\ntoday') }}", "TemplateError: not)"),
        ("{{ messages[0]['content'] + style }}", "UndefinedError: 'style' is undefined)"),
        ("{{ messages[7]['content'].strip() }}", "UndefinedError: "),
        ("{% for m in messages %}", "TemplateSyntaxError: "),
        ("{{ messages[0]['content'] + 1 }}", "TypeError: "),
        ({"tool_use": QWEN}, "ValueError: "),
    ],
    ids=["raises", "missing", "no such turn", "syntax", "type", "named"],
)
def test_whatever_a_template_raises_is_one_line(template: Any, why: str, system: Any) -> None:
    tokenizer = qwen(template=template)
    start = "prompt.template: the chat template of the model's tokenizer fails ("
    message = said(tokenizer, section(system))
    assert message.startswith(start + why)
    with pytest.raises(ConfigError, match="chat template of the model's tokenizer fails"):
        encode_prompt("Hi", section(system), tokenizer, 100)


def test_a_template_that_loses_the_prompt_is_refused() -> None:
    assert "does not write the user's text" in said(qwen(template=PARTS), section())


def test_a_missing_chat_template_is_refused() -> None:
    assert said(LIKE["gpt2"](), section(None, "chat")) == (
        "prompt.template: 'chat', but the model's tokenizer has no chat template"
    )


def test_a_template_that_takes_nothing_empty_is_cut_to_words() -> None:
    tokenizer = qwen(template=NO_EMPTY)
    ids, cut = encode_prompt("and the win " * 30, section(""), tokenizer, 24)
    assert cut
    assert tokenizer.decode(ids).startswith("[user: ")
    assert tokenizer.decode(ids).endswith("win ]")


def test_a_changed_template_is_asked_anew() -> None:
    tokenizer = qwen()
    assert render("Hi", section(""), tokenizer).startswith("<|im_start|>system\n<|im_end|>")
    tokenizer.chat_template = GEMMA
    assert render("Hi", section(""), tokenizer) == render("Hi", section(None), tokenizer)


class Later(datetime.datetime):
    """A clock of another day."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "Later":
        return cls(2031, 1, 2, 3, 4, 5, tzinfo=tz)


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (LLAMA32, "<s>Today Date: 26 Jul 2024\n\nuser: Hi\n"),
        (ASKS_ALWAYS, "2024-07-26 (Friday, 26 July 24, 00:00): Hi"),
        ("\n  {% if true %}x{% endif %}{{ strftime_now('%D%%') }}{{ messages[0].content }}", DAY),
        ("  {% if true %}x{% endif %} {{ strftime_now('') }}{{ messages[0].content }}\n", "x Hi"),
    ],
    ids=["llama 3.2", "asks always", "line break first", "space first"],
)
def test_a_prompt_is_the_same_on_every_day(
    template: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = llama2(template=template)
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    text = render_chat("Hi", None, tokenizer)
    assert text == written


def test_a_template_that_takes_the_date_gets_one() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    tokenizer = llama2(template=LLAMA32)
    expected = tokenizer.apply_chat_template(
        turns, date_string="26 Jul 2024", tokenize=False, add_generation_prompt=True
    )
    assert render_chat("Hi", None, tokenizer) == expected
    tokenizer = qwen(template="{{ date_string }}: {{ messages[0].content }}")
    assert render_chat("Hi", None, tokenizer) == "26 Jul 2024: Hi"


def test_a_template_that_does_not_ask_for_the_date_is_left_alone() -> None:
    for template in (QWEN, GEMMA, NEWLINE):
        assert on_one_day(template) == template
