from typing import Any

import pytest

from lori_core.config import PromptSection
from lori_core.core.errors import ConfigError
from lori_core.data.example import Example
from lori_core.data.prompts import encode, encode_prompt, render
from lori_core.models import base_model
from support import tiny

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    _, folder, _ = tiny("llama")
    return base_model.load_tokenizer(folder)


def test_the_templates_render_as_documented(tokenizer: Any) -> None:
    assert render("Hi", PromptSection(template="plain"), tokenizer) == "Hi"
    alpaca = render("Hi", PromptSection(template="auto"), tokenizer)
    assert alpaca.endswith("### Instruction:\nHi\n\n### Response:\n")
    tokenizer.chat_template = CHAT
    assert render("Hi", PromptSection(), tokenizer) == "<user>Hi<assistant>"
    assert render("Hi", PromptSection(system=""), tokenizer) == "<system><user>Hi<assistant>"


def test_a_chat_template_that_is_not_there_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        render("Hi", PromptSection(template="chat"), tokenizer)


def test_target_and_end_of_sequence_follow_the_prompt(tokenizer: Any) -> None:
    encoded = encode(Example("ab", "cd"), PromptSection(template="plain"), tokenizer, 32)
    assert tokenizer.decode(encoded.prompt) == "ab"
    assert tokenizer.decode(encoded.target[:-1]) == "cd"
    assert encoded.target[-1] == tokenizer.eos_token_id
    assert not encoded.cut


def test_a_long_prompt_loses_its_front_but_never_the_template(tokenizer: Any) -> None:
    tokenizer.chat_template = CHAT
    ids, cut = encode_prompt("0123456789" * 10, PromptSection(), tokenizer, 40)
    text = tokenizer.decode(ids)
    assert cut
    assert len(ids) <= 40
    assert text.startswith("<user>")
    assert text.endswith("6789<assistant>")


def test_a_long_example_keeps_its_target(tokenizer: Any) -> None:
    section = PromptSection(template="plain")
    encoded = encode(Example("p" * 100, "target"), section, tokenizer, 20)
    assert encoded.cut
    assert len(encoded) == 20
    assert tokenizer.decode(encoded.target[:-1]) == "target"
    longer = encode(Example("p" * 100, "t" * 100), section, tokenizer, 20)
    assert (len(longer.prompt), len(longer.target), longer.cut) == (10, 10, True)
