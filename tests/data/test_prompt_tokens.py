"""Tokens of prompts and targets under the conventions of the tokenizers that people use."""

from typing import Any

import pytest
from tokenizers_like import EOS, FRONT, LIKE, NEWLINE, llama2, llama3, mistral, phi3

from lori_core.config import PromptSection
from lori_core.core.errors import ConfigError
from lori_core.data.example import Example
from lori_core.data.prompts import encode, encode_prompt, render
from lori_core.evaluation.inference.likelihood import _tokenize
from lori_core.evaluation.scoring.paper_scorers import encode_paper_prompt, paper_prompt

PLAIN, ALPACA, CHAT = (PromptSection(template=name) for name in ("plain", "alpaca", "chat"))
WIDE = 10_000
PROMPT = "Name the king and his hand."
REFUSES = ("mistral", "gemma")  # a system turn
WITH_CHAT = [name for name in LIKE if LIKE[name]().chat_template]


def ids_of(tokenizer: Any, tokens: list[str]) -> list[int]:
    found: list[int] = tokenizer.convert_tokens_to_ids(tokens)
    return found


def bare(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.fixture(params=[False, True], ids=["as it is", "appends EOS"])
def appends(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def made(name: str, appends: bool, **more: Any) -> Any:
    tokenizer = LIKE[name](back=EOS[name] if appends else "", **more)
    assert (tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id) is appends
    return tokenizer


@pytest.mark.parametrize(
    ("name", "system"),
    [
        (name, system)
        for name in WITH_CHAT
        for system in (None, "", "Be brief.")
        if not (system and name in REFUSES)
    ],
)
def test_a_chat_has_the_tokens_of_apply_chat_template(
    name: str, system: str | None, appends: bool
) -> None:
    tokenizer = made(name, appends)
    turns = [{"role": "user", "content": PROMPT}]
    if system is not None and name not in REFUSES:
        turns.insert(0, {"role": "system", "content": system})
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    section = PromptSection(template="chat", system=system)
    assert encode_prompt(PROMPT, section, tokenizer, WIDE) == (expected, False)
    begins = name in ("llama2", "llama3", "mistral", "gemma")
    assert expected.count(tokenizer.bos_token_id) == begins


@pytest.mark.parametrize("name", LIKE)
@pytest.mark.parametrize("section", [PLAIN, ALPACA], ids=["plain", "alpaca"])
def test_a_text_has_bos_where_the_tokenizer_puts_it_and_no_eos(
    name: str, section: PromptSection, appends: bool
) -> None:
    tokenizer = made(name, appends)
    ids, cut = encode_prompt(PROMPT, section, tokenizer, WIDE)
    text = bare(tokenizer, render(PROMPT, section, tokenizer))
    assert ids == ids_of(tokenizer, FRONT[name]) + text
    assert not cut


@pytest.mark.parametrize("before", ["", "\n", " \n "])
@pytest.mark.parametrize("name", ["llama2", "llama3", "mistral", "gemma"])
def test_a_text_that_brings_its_bos_gets_no_second_one(name: str, before: str) -> None:
    tokenizer = LIKE[name]()
    text = f"{before}{tokenizer.bos_token}{PROMPT}"
    assert encode_prompt(text, PLAIN, tokenizer, WIDE)[0] == bare(tokenizer, text)
    inside = f"before{text}"
    ids = encode_prompt(inside, PLAIN, tokenizer, WIDE)[0]
    assert ids == [tokenizer.bos_token_id, *bare(tokenizer, inside)]


def test_a_template_that_begins_with_a_newline_gets_no_second_bos() -> None:
    tokenizer = llama3(template=NEWLINE)
    ids, _ = encode_prompt(PROMPT, CHAT, tokenizer, WIDE)
    assert ids == bare(tokenizer, f"\n<|begin_of_text|>[{PROMPT}]")
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_template_without_bos_gets_none() -> None:
    tokenizer = phi3()
    ids, _ = encode_prompt(PROMPT, CHAT, tokenizer, WIDE)
    assert tokenizer.bos_token_id in tokenizer("a")["input_ids"]
    assert tokenizer.bos_token_id not in ids


@pytest.mark.parametrize("name", LIKE)
def test_target_and_eos_follow_the_prompt(name: str, appends: bool) -> None:
    tokenizer = made(name, appends)
    for section in (PLAIN, ALPACA, *([CHAT] if name in WITH_CHAT else [])):
        row = encode(Example(PROMPT, "and then"), section, tokenizer, WIDE)
        assert row.prompt == encode_prompt(PROMPT, section, tokenizer, WIDE)[0]
        assert row.target == [*bare(tokenizer, "and then"), tokenizer.eos_token_id]
        assert tokenizer.decode(row.target[:-1]) == "and then"
        assert not row.cut


@pytest.mark.parametrize("name", LIKE)
@pytest.mark.parametrize("words", [0, 1, 2, 5, 11])
def test_a_cut_prompt_has_the_whole_template_and_each_special_token_once(
    name: str, words: int, appends: bool
) -> None:
    tokenizer = made(name, appends)
    long = "é" * 7 + " and the win" * 40
    for section in (PLAIN, ALPACA, *([CHAT] if name in WITH_CHAT else [])):
        whole, _ = encode_prompt("x", section, tokenizer, WIDE)
        frame = len(encode_prompt("", section, tokenizer, WIDE)[0])
        ids, cut = encode_prompt(long, section, tokenizer, frame + words)
        assert cut
        assert frame - 1 <= len(ids) <= frame + words
        special = set(tokenizer.all_special_ids)
        assert [i for i in ids if i in special] == [i for i in whole if i in special]
        front = ids_of(tokenizer, FRONT[name])
        if section is not CHAT:
            assert ids[: len(front)] == front
        if words == 11:
            assert "win" in tokenizer.decode(ids)


@pytest.mark.parametrize("name", LIKE)
def test_a_template_that_is_too_long_keeps_its_first_special_tokens(name: str) -> None:
    tokenizer = LIKE[name]()
    for section in (ALPACA, *([CHAT] if name in WITH_CHAT else [])):
        frame = encode_prompt("", section, tokenizer, WIDE)[0]
        front = [i for i in frame[:1] if i in tokenizer.all_special_ids]
        for length in range(1, len(frame)):
            ids, cut = encode_prompt("and", section, tokenizer, length)
            assert (len(ids), cut) == (length, True)
            assert ids[: len(front)] == front
            if length > 4:
                assert ids[-2:] == frame[-2:]


@pytest.mark.parametrize("keep", range(1, 12))
def test_a_character_that_is_cut_through_goes_whole(keep: int) -> None:
    tokenizer = LIKE["gpt2"]()
    ids, cut = encode_prompt("日本語" * 4, PLAIN, tokenizer, keep)
    assert cut
    assert tokenizer.decode(ids) == ("日本語" * 4)[12 - keep // 3 :]


def test_a_row_keeps_the_template_before_the_target() -> None:
    tokenizer = llama3()
    frame = len(encode_prompt("", CHAT, tokenizer, WIDE)[0])
    row = encode(Example("p" * 100, "t" * 100), CHAT, tokenizer, frame + 60)
    assert len(row) == frame + 60
    assert row.prompt[0] == tokenizer.bos_token_id
    assert tokenizer.decode(row.prompt).endswith(
        "p<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert row.cut


def test_a_row_of_one_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_length: 1; at least 2 tokens are needed"):
        encode(Example("p", "t"), PLAIN, LIKE["gpt2"](), 1)


def test_no_merge_reaches_from_the_prompt_into_the_target() -> None:
    tokenizer = LIKE["gpt2"]()
    assert len(bare(tokenizer, "an")) == 1
    row = encode(Example("a", "n"), PLAIN, tokenizer, WIDE)
    assert (row.prompt, row.target[:-1]) == (bare(tokenizer, "a"), bare(tokenizer, "n"))


@pytest.mark.parametrize("name", LIKE)
def test_a_target_may_begin_with_a_space(name: str) -> None:
    tokenizer = LIKE[name]()
    row = encode(Example("so:", " and"), PLAIN, tokenizer, WIDE)
    assert row.target[:-1] == bare(tokenizer, " and")
    assert tokenizer.decode(row.target[:-1]) in (" and", "and")


@pytest.mark.parametrize("tokenizer", [llama2(), mistral()], ids=["llama2", "mistral"])
def test_a_dummy_prefix_begins_the_target_and_is_gone_when_decoded(tokenizer: Any) -> None:
    row = encode(Example("so:", "and"), PLAIN, tokenizer, WIDE)
    assert tokenizer.convert_ids_to_tokens(row.target[:-1])[0].startswith("▁")
    assert tokenizer.decode(row.target[:-1]) == "and"


@pytest.mark.parametrize("name", LIKE)
def test_an_option_is_scored_by_the_tokens_it_is_trained_by(name: str, appends: bool) -> None:
    tokenizer = made(name, appends)
    prompt = "Is it? Answer format: true/false"
    example = Example(prompt, "the answer is false", "choice", "false")
    for section in (PLAIN, ALPACA, *([CHAT] if name in WITH_CHAT else [])):
        question = _tokenize(example, tokenizer, section, WIDE)
        row = encode(example, section, tokenizer, WIDE)
        assert question.shared + question.own["false"] == row.prompt + row.target[:-1]


@pytest.mark.parametrize("name", LIKE)
def test_the_paper_s_prompts_follow_the_same_rule(name: str, appends: bool) -> None:
    tokenizer = made(name, appends)
    code = Example(
        "Write it.",
        "",
        "code",
        check={
            "prompt": "def f():",
            "tests": "",
        },
    )
    assert encode_paper_prompt(code, tokenizer)[0] == [
        *ids_of(tokenizer, FRONT[name]),
        *bare(tokenizer, "def f():"),
    ]
    number = Example("2 + 2", "4", "number", "4")
    assert encode_paper_prompt(number, tokenizer)[0] == bare(tokenizer, paper_prompt(number))


def test_what_tokenizer_json_says_of_truncation_cuts_nothing() -> None:
    tokenizer = LIKE["llama3"]()
    tokenizer.backend_tokenizer.enable_truncation(4)
    ids, cut = encode_prompt(PROMPT, PLAIN, tokenizer, WIDE)
    assert tokenizer.decode(ids) == f"<|begin_of_text|>{PROMPT}"
    assert not cut
