"""Conversations as tokens: which of them are learned, by an independent rendering."""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers_like
from tokenizers_like import LIKE

from lori_core.config import PromptSection
from lori_core.core.errors import DataError
from lori_core.data.conversation_check import ConversationCheck
from lori_core.data.conversations import check_tokens, encode_conversation
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode

CHAT = PromptSection(template="chat")
TALK = ("What is a dog?", "An animal. It barks!", "And\na cat?", "Another one: ça va, 2+2=4.")


def turns(*texts: str, system: str = "") -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    talk = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return [{"role": "system", "content": system}] * bool(system) + talk


def pieces(name: str, talk: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Return a conversation as texts, each with whether it is learned, written out by hand."""
    found: list[tuple[str, bool]] = []
    system = next((t["content"] for t in talk if t["role"] == "system"), "")
    if name == "qwen" and not system:
        found.append(("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", False))
    bos = {"llama3": "<|begin_of_text|>", "mistral": "<s>", "gemma": "<bos>"}.get(name, "")
    for turn in talk:
        role, text = turn["role"], turn["content"]
        answer = role == "assistant"
        if name == "llama2" and role == "user":
            system_text = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
            found.append((f"<s>[INST] {system_text}{text} [/INST]", False))
            system = ""
        elif name == "llama2" and answer:
            found.append((f" {text} </s>", True))
        elif name == "mistral":
            found.append(
                (f"{text}</s>", True) if answer else (f"{bos}[INST] {text} [/INST]", False)
            )
        elif name == "llama3":
            found.append((f"{bos}<|start_header_id|>{role}<|end_header_id|>\n\n", False))
            found.append((f"{text}<|eot_id|>", answer))
        elif name == "gemma":
            found.append((f"{bos}<start_of_turn>{'model' if answer else role}\n", False))
            found += [(f"{text}<end_of_turn>", answer), ("\n", False)]
        elif name in ("qwen", "smollm"):
            found.append((f"<|im_start|>{role}\n", False))
            found += [(f"{text}<|im_end|>", answer), ("\n", False)]
        elif name == "phi3":
            found.append((f"<|{role}|>\n", False))
            found += [(f"{text}<|end|>", answer), ("\n", False)]
        bos = ""
    return [*found, ("<|endoftext|>", False)] if name == "phi3" else found


def expected(name: str, talk: list[dict[str, Any]], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids of a conversation, and the learned ids, by decoding pieces of the text."""
    parts = pieces(name, talk)
    ids = tokenizer("".join(text for text, _ in parts), add_special_tokens=False)["input_ids"]
    ends, total = [], 0
    for text, learned in parts:
        total += len(text)
        ends.append((total, learned))
    offsets = tokenizer("".join(text for text, _ in parts), add_special_tokens=False,
                        return_offsets_mapping=True)["offset_mapping"]  # fmt: skip
    kept = []
    for token, (_, stop) in zip(ids, offsets, strict=True):
        # The part that holds the last character of the token.
        kept += [token] * next(learned for end, learned in ends if stop <= end)
    return ids, kept


def smollm() -> Any:
    template = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    return tokenizers_like.qwen(template=template)


TOKENIZERS = {name: make for name, make in LIKE.items() if name != "gpt2"} | {"smollm": smollm}


def learned_of(row: Encoded) -> list[int]:
    whole = row.prompt + row.target
    return [token for place, token in enumerate(whole) if row.learned(place)]


@pytest.mark.parametrize("system", ["", "Be kind."])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_learned_tokens_are_those_of_an_independent_rendering(
    name: str, count: int, system: str
) -> None:
    tokenizer = TOKENIZERS[name]()
    talk = turns(*TALK[:count], system=system)
    if system and name in ("gemma", "mistral"):
        with pytest.raises(DataError, match=r"^set.jsonl:3: prompt.template: the chat template .*"):
            encode_conversation(talk, CHAT, tokenizer, 10_000, "set.jsonl:3")
        return
    row = encode_conversation(talk, CHAT, tokenizer, 10_000, "set.jsonl:3")
    ids, learned = expected(name, talk, tokenizer)
    assert row.prompt + row.target == ids
    assert ids == list(tokenizer.apply_chat_template(talk, return_dict=False))
    assert learned_of(row) == learned
    assert row.supervised == len(learned)
    assert not row.cut
    assert row.learned(len(row.prompt))


@pytest.mark.parametrize("name", ["llama3", "gemma", "qwen", "smollm"])
def test_one_question_and_answer_are_learned_as_a_prompt_and_a_target(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    talk = encode_conversation(turns(*TALK[:2]), CHAT, tokenizer, 10_000, "x")
    plain = encode(Example(TALK[0], TALK[1]), CHAT, tokenizer, 10_000)
    end = [] if name != "gemma" else tokenizer("<end_of_turn>", add_special_tokens=False).input_ids
    assert talk.prompt == plain.prompt
    assert learned_of(talk) == plain.target[:-1] + (end or plain.target[-1:])


def marked(template: str) -> str:
    """Return a ChatML template with generation marks."""
    return template.replace(
        "message['content'] + '<|im_end|>\n' }}",
        "(message['content'] if message['role'] != 'assistant' else '') }}"
        "{% if message['role'] == 'assistant' %}{% generation %}"
        "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ '<|im_end|>' }}{% endif %}{{ '\n' }}",
    )


def test_generation_marks_are_used_where_a_template_has_them() -> None:
    plain = tokenizers_like.qwen()
    with_marks = tokenizers_like.qwen(template=marked(tokenizers_like.QWEN))
    assert "{% generation %}" in with_marks.chat_template
    talk = turns(*TALK)
    row = encode_conversation(talk, CHAT, with_marks, 10_000, "x")
    assert row == encode_conversation(talk, CHAT, plain, 10_000, "x")
    found = with_marks.apply_chat_template(
        talk, return_dict=True, tokenize=True, return_assistant_tokens_mask=True
    )
    assert [row.learned(n) for n in range(len(row))] == list(map(bool, found["assistant_masks"]))


def test_an_answer_of_weight_0_is_read_but_not_learned() -> None:
    tokenizer = tokenizers_like.llama3()
    talk = turns(*TALK)
    both = encode_conversation(talk, CHAT, tokenizer, 10_000, "x")
    talk[1]["weight"] = 0
    row = encode_conversation(talk, CHAT, tokenizer, 10_000, "x")
    assert row.prompt + row.target == both.prompt + both.target
    assert tokenizer.decode(learned_of(row)) == TALK[3] + "<|eot_id|>"


def test_a_system_prompt_of_the_run_is_for_conversations_without_one() -> None:
    tokenizer = tokenizers_like.llama3()
    section = PromptSection(template="chat", system="Be brief.")
    for own, said in (("", "Be brief."), ("Be kind.", "Be kind.")):
        row = encode_conversation(turns(*TALK, system=own), section, tokenizer, 10_000, "x")
        text = tokenizer.decode(row.prompt)
        assert text.count("system") == 1
        assert said in text


QWEN3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
COUNTING = "{{ messages | length }}" + tokenizers_like.QWEN
SILENT = tokenizers_like.QWEN.replace(
    "message['content'] + '<", "(message['content'] if loop.first else '') + '<"
)
UNMARKED_TURN = (
    marked(tokenizers_like.QWEN)
    .replace(
        "{% if message['role'] == 'assistant' %}{% generation %}",
        "{% if message['role'] == 'assistant' and loop.last %}{% generation %}",
    )
    .replace("{{ '<|im_end|>' }}{% endif %}", "{{ message['content'] + '<|im_end|>' }}{% endif %}")
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            QWEN3,
            r"^a.jsonl:7: the chat template has no generation marks, and renders the first 2 t",
        ),
        (COUNTING, r"^a.jsonl:7: the chat template has no generation marks, and renders the fir"),
        (SILENT, r"^a.jsonl:7: the chat template "),
        (UNMARKED_TURN, r"^a.jsonl:7: the chat template's generation marks name 1 parts, and the "),
        ("{{ nothing.at.all }}", r"^a.jsonl:7: prompt.template: the chat template .* fails"),
    ],
)
def test_a_template_that_does_not_show_the_answers_is_refused_by_row(
    template: str, message: str
) -> None:
    check = ConversationCheck(CHAT, tokenizers_like.qwen(template=template))
    with pytest.raises(DataError, match=message) as error:
        check(Example(TALK[0], TALK[1], messages=turns(*TALK)), "a.jsonl:7")
    assert "\n" not in str(error.value)


def test_the_last_answer_may_be_rendered_with_more_than_its_text() -> None:
    tokenizer = tokenizers_like.qwen(template=QWEN3)
    row = encode_conversation(turns(*TALK[:2]), CHAT, tokenizer, 10_000, "x")
    assert tokenizer.decode(learned_of(row)) == f"<think>\n\n</think>\n\n{TALK[1]}<|im_end|>"


def test_tokens_other_than_those_of_the_template_are_refused() -> None:
    tokenizer = tokenizers_like.qwen()
    row = Encoded([1, 2], [3], False)
    with pytest.raises(DataError, match=r"^a:1: the tokens of this conversation are not those"):
        check_tokens(turns(*TALK), CHAT, tokenizer, row, "a:1")


@pytest.mark.parametrize("length", [2, 5, 20, 60, 100])
def test_a_long_conversation_loses_its_end_and_keeps_an_answer(length: int) -> None:
    tokenizer = tokenizers_like.llama3()
    whole = encode_conversation(turns(*TALK), CHAT, tokenizer, 10_000, "x")
    row = encode_conversation(turns(*TALK), CHAT, tokenizer, length, "x")
    assert len(row) == length < len(whole)
    assert row.cut
    assert row.supervised > 0
    assert row.target == whole.target[: len(row.target)]
    assert row.unlearned == {place for place in whole.unlearned if place < len(row.target)}
    if len(whole.prompt) <= length // 2:
        assert row.prompt == whole.prompt
    else:
        front = whole.prompt[:2][: len(row.prompt)]  # BOS and the header's first token
        rest = len(row.prompt) - len(front)
        assert row.prompt == front + whole.prompt[len(whole.prompt) - rest :][:rest]
