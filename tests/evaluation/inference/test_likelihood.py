import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from shipped import examples

from lori_core.config import PromptSection
from lori_core.core.errors import DataError
from lori_core.data.example import Example
from lori_core.data.prompts import encode_prompt
from lori_core.evaluation.inference.likelihood import Choice, continuations_of, options_of, score
from lori_core.models import base_model
from support import tiny

PLAIN = PromptSection(template="plain")


def boolean(question: str, answer: str = "true") -> Example:
    prompt = (
        f"Please answer the following question with true or false, question: {question}?\n\n"
        "Answer format: true/false"
    )
    return Example(prompt, f"the correct answer is {answer}", "choice", answer)


def choice(question: str, *texts: str, answer: str = "answer1", between: str = " ") -> Example:
    shown = between.join(f"Answer{number}: {text}" for number, text in enumerate(texts, 1))
    names = "/".join(f"answer{number}" for number in range(1, len(texts) + 1))
    prompt = (
        f"Please choose the correct answer to the question: {question}\n\n{shown}\n\n"
        f"Answer format: {names}"
    )
    return Example(prompt, f"the correct answer is {answer}", "choice", answer)


def named(example: Example, text: str) -> Example:
    """Return the example with the option's text before the answer."""
    return replace(example, target=f"the correct answer is {text}, {example.answer}")


#: Of 2 to 5 options each, which differ in one token, in some tokens, in the first one already; in
#: the last, one option's continuation begins with the whole of the other's.
EXAMPLES = [
    choice("What barks?", "a cat", "a dog", "a fish", answer="answer2"),
    boolean("is ice warm", "false"),
    named(choice("What meows?", "a cat", "a big dog", "eels", "x", answer="answer1"), "a cat"),
    choice("Which?", "a", "b", "c", "d", "e", answer="answer5"),
    replace(boolean("is fire warm"), target=""),
    replace(choice("Left, right or neither?", "left", "right"), target=""),
    named(choice("Which?", "a", "a, answer1"), "a"),
]

FORMATS = {
    "boolq": (boolean("can a cat swim"), ["true", "false"]),
    "arc, three": (choice("Why?", "a", "b", "c"), ["answer1", "answer2", "answer3"]),
    "arc, four": (choice("Why?", *"abcd"), ["answer1", "answer2", "answer3", "answer4"]),
    "arc, five": (choice("Why?", *"abcde"), [f"answer{number}" for number in range(1, 6)]),
    "openbookqa": (choice("Fog is found around", *"abcd"), [f"answer{n}" for n in range(1, 5)]),
    "siqa": (
        choice("Kim ate. How is Kim?", "hungry", "full", "sad", between="\n\n"),
        ["answer1", "answer2", "answer3"],
    ),
    "piqa": (
        Example(
            "Please choose the correct solution to the question: To cool soup,\n\n"
            "Solution1: blow on it\n\nSolution2: boil it\n\nAnswer format: solution1/solution2",
            "the correct answer is solution1",
            "choice",
            "solution1",
        ),
        ["solution1", "solution2"],
    ),
    "hellaswag": (
        Example(
            "Please choose the correct ending to complete the given sentence: Baking: A man\n\n"
            "Ending1: , stirs. Ending2: flies. Ending3: sings. Ending4: melts.\n\n"
            "Answer format: ending1/ending2/ending3/ending4",
            "the correct answer is ending1",
            "choice",
            "ending1",
        ),
        ["ending1", "ending2", "ending3", "ending4"],
    ),
    "winogrande": (
        Example(
            "Please choose the correct answer to fill in the blank to complete the given "
            "sentence: Ann thanked Eve as _ had helped.\n\nOption1: Ann Option2: Eve "
            "Answer format: option1/option2",
            "the correct answer is option2",
            "choice",
            "option2",
        ),
        ["option1", "option2"],
    ),
    "labels only": (
        Example("Which?\nAnswer1: a\nAnswer2: b", "answer 2", "choice", "Answer 2"),
        ["answer1", "answer2"],
    ),
    "words only": (Example("True or false: ice is cold", "", "choice", "true"), ["true", "false"]),
    "the last format counts": (
        choice("What does 'Answer format: true/false' mean?", "a", "b"),
        ["answer1", "answer2"],
    ),
}


def plain_reference(model: Any, tokenizer: Any, example: Example, length: int = 512) -> Any:
    """Return sums and lengths from one whole forward pass for each option."""
    prompt, _ = encode_prompt(example.prompt, PLAIN, tokenizer, length)
    sums, lengths = {}, {}
    for option, text in continuations_of(example).items():
        target = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + target])).logits[0].float()
        logprobs = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        sums[option] = logprobs[range(len(target)), target].sum().item()
        lengths[option] = len(target)
    return sums, lengths


def agree(choices: list[Choice], others: list[Choice]) -> bool:
    return all(
        one.picked == other.picked and one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        for one, other in zip(choices, others, strict=True)
    )


def scored(model: Any, tokenizer: Any, examples: list[Example], size: int = 4) -> list[Choice]:
    return score(model, tokenizer, examples, PLAIN, 512, size, "test")


@pytest.mark.parametrize(("example", "options"), FORMATS.values(), ids=FORMATS)
def test_options_are_read_from_the_prompt(example: Example, options: list[str]) -> None:
    assert options_of(example) == options


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example("Which?", "a", "choice", "answer1"), "names 0 options, at least 2 are needed"),
        (
            Example("Which?\n\nAnswer format: answer1", "a", "choice", "answer1"),
            "names 1 options, at least 2 are needed",
        ),
        (
            Example("Which?\n\nAnswer format: yes/no", "yes", "choice", "yes"),
            "names 0 options, at least 2 are needed",
        ),
        (
            replace(EXAMPLES[0], answer="answer4"),
            r"the answer 'answer4' is none of its options \(answer1, answer2, answer3\)",
        ),
        (replace(EXAMPLES[0], scorer="number"), r"scorer 'number' \(log-likelihood is for: choice"),
        (
            replace(EXAMPLES[0], target="a dog"),
            "the target does not name the answer 'answer2': 'a dog'",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(example: Example, message: str) -> None:
    with pytest.raises(DataError, match=f"^example {example.id}: .*{message}") as refused:
        continuations_of(example)
    assert "\n" not in str(refused.value)
    model, folder, _ = tiny("llama")
    with pytest.raises(DataError, match=message):
        scored(model, base_model.load_tokenizer(folder), [EXAMPLES[1], example])


def test_continuations_are_the_target_with_each_option_for_the_answer() -> None:
    assert continuations_of(EXAMPLES[0]) == {
        "answer1": "the correct answer is answer1",
        "answer2": "the correct answer is answer2",
        "answer3": "the correct answer is answer3",
    }
    assert continuations_of(EXAMPLES[1]) == {
        "true": "the correct answer is true",
        "false": "the correct answer is false",
    }


def test_continuations_without_a_target_are_the_options() -> None:
    example = replace(EXAMPLES[0], target="")
    assert continuations_of(example) == {name: name for name in ("answer1", "answer2", "answer3")}


def test_an_option_s_text_in_the_target_goes_with_it() -> None:
    example = choice("What barks?", "a cat", "a dog: Answer1", answer="answer2")
    before = replace(example, target="It is a dog: Answer1, answer2.")
    assert continuations_of(before) == {
        "answer1": "It is a cat, answer1.",
        "answer2": "It is a dog: Answer1, answer2.",
    }
    behind = replace(choice("What barks?", "a cat", "a dog"), target="Answer1: a cat")
    assert continuations_of(behind) == {"answer1": "answer1: a cat", "answer2": "answer2: a dog"}


def test_every_bundled_question_has_options_that_read_like_its_target() -> None:
    for example in examples("nlu")["test"]:
        continuations = continuations_of(example)
        assert continuations[example.answer] == example.target
        for option, text in continuations.items():
            if example.kind == "choice":
                shown = text.removeprefix("the correct answer is ").removesuffix(f", {option}")
                assert f"{option.capitalize()}: {shown}" in example.prompt
            else:
                assert text == f"the correct answer is {option}"


def test_scores_are_those_of_a_whole_pass_for_each_option(architecture: str) -> None:
    model, folder, _ = tiny(architecture)
    tokenizer = base_model.load_tokenizer(folder)
    for example, found in zip(EXAMPLES, scored(model, tokenizer, EXAMPLES), strict=True):
        sums, lengths = plain_reference(model, tokenizer, example)
        assert found.logprobs == pytest.approx(sums, abs=1e-4)
        means = {option: sums[option] / lengths[option] for option in sums}
        assert found.per_token == pytest.approx(means, abs=1e-5)
        assert list(found.logprobs) == options_of(example)
        assert found.picked == max(means, key=means.__getitem__)
        assert found.correct == (found.picked == example.answer)
        assert not found.cut


def test_the_length_is_counted_in_tokens_of_the_whole_continuation() -> None:
    model, folder, _ = tiny("llama")
    (found,) = scored(model, base_model.load_tokenizer(folder), [EXAMPLES[1]])
    for option, total in found.logprobs.items():  # one token is one byte here
        assert found.per_token[option] == total / len(f"the correct answer is {option}")


def test_scores_do_not_depend_on_batch_order_or_padding(architecture: str) -> None:
    model, folder, _ = tiny(architecture)
    tokenizer = base_model.load_tokenizer(folder)
    longer = choice("What is that? " * 8, "a", "b")  # the others are padded to it
    examples = [*EXAMPLES, longer]
    alone = [scored(model, tokenizer, [example])[0] for example in examples]
    for size in (1, 2, 3, 32):
        assert agree(scored(model, tokenizer, examples, size), alone)
    assert agree(scored(model, tokenizer, examples[::-1])[::-1], alone)
    assert scored(model, tokenizer, []) == []


def test_a_sliding_window_sees_what_it_would_see_without_a_cache() -> None:
    model, folder, _ = tiny("mistral")
    tokenizer = base_model.load_tokenizer(folder)
    wide = scored(model, tokenizer, EXAMPLES)
    model.config.sliding_window = 32
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 32
    found = scored(model, tokenizer, EXAMPLES)
    assert not agree(found, wide)
    for example, one in zip(EXAMPLES, found, strict=True):
        sums, _ = plain_reference(model, tokenizer, example)
        assert one.logprobs == pytest.approx(sums, abs=1e-4)


def test_a_model_with_an_adapter_is_scored_with_it() -> None:
    model, folder, _ = tiny("llama")
    tokenizer = base_model.load_tokenizer(folder)
    bare = scored(model, tokenizer, EXAMPLES)
    lora = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    worn = get_peft_model(model, lora).eval()
    found = scored(worn, tokenizer, EXAMPLES)
    assert not agree(found, bare)
    for example, one in zip(EXAMPLES, found, strict=True):
        sums, _ = plain_reference(worn, tokenizer, example)
        assert one.logprobs == pytest.approx(sums, abs=1e-4)


def test_a_prompt_that_is_too_long_is_cut_and_said_so() -> None:
    model, folder, _ = tiny("llama")
    tokenizer = base_model.load_tokenizer(folder)
    length = len(tokenizer(EXAMPLES[0].prompt)["input_ids"])
    longer = choice("x" * 20 + "What barks?", "a cat", "a dog", "a fish", answer="answer2")
    found = score(model, tokenizer, [longer, EXAMPLES[0]], PLAIN, length, 2, "test")
    assert [one.cut for one in found] == [True, False]
    sums, _ = plain_reference(model, tokenizer, longer, length)
    assert found[0].logprobs == pytest.approx(sums, abs=1e-4)


def test_a_small_difference_counts_in_half_precision_too() -> None:
    model, folder, _ = tiny("llama")
    model = model.to(torch.bfloat16)
    tokenizer = base_model.load_tokenizer(folder)
    example = choice("Which?", "a", "b", answer="answer2")
    prompt = tokenizer(example.prompt + "the correct answer is answer")["input_ids"]
    with torch.inference_mode():
        state = model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
    # Both tokens' logits are about 16; the second's is larger by less than bfloat16 can show there.
    head = torch.zeros_like(model.lm_head.weight)
    one, two = tokenizer("12")["input_ids"]
    head[one] = head[two] = state / 4
    largest = state.abs().argmax()
    head[two, largest] *= 1 + 2**-7
    model.lm_head.weight = torch.nn.Parameter(head, requires_grad=False)
    difference = (state.float() @ (head[two] - head[one]).float()).item()
    assert 0 < difference < 1 / 32
    (found,) = scored(model, tokenizer, [example])
    assert found.picked == "answer2"
    assert found.logprobs["answer2"] - found.logprobs["answer1"] == pytest.approx(
        difference, abs=2e-3
    )


def test_scoring_leaves_the_model_as_it_was() -> None:
    model, folder, _ = tiny("llama")
    model = model.to(torch.bfloat16)
    ids = torch.tensor([[1, 2, 3]])
    before = model(ids).logits
    scored(model, base_model.load_tokenizer(folder), EXAMPLES)
    after = model(ids).logits
    assert after.dtype == torch.bfloat16
    assert torch.equal(after, before)


FILES = Path(os.environ.get("LORI_DATASETS", "../shared/datasets"))


@pytest.mark.datasets
@pytest.mark.skipif(not FILES.is_dir(), reason=f"no data sets in {FILES} (set LORI_DATASETS)")
@pytest.mark.parametrize(
    ("name", "split", "counts"),
    [
        ("boolq", "train", {2: 9427}),
        ("boolq", "test", {2: 3270}),
        ("openbookqa", "train", {4: 4957}),
        ("openbookqa", "test", {4: 500}),
        ("arc-easy", "train", {3: 6, 4: 2241, 5: 4}),
        ("arc-easy", "test", {3: 7, 4: 2365, 5: 4}),
        ("arc-challenge", "train", {3: 1, 4: 1117, 5: 1}),
        ("arc-challenge", "test", {3: 4, 4: 1165, 5: 3}),
    ],
)
def test_every_row_of_the_public_sets_has_options(
    name: str, split: str, counts: dict[int, int]
) -> None:
    found: dict[int, int] = {}
    rows = json.loads((FILES / "nlu" / name / f"{split}.json").read_text(encoding="utf-8"))
    for row in rows:
        example = Example(row["instruction"], row["output"], "choice", row["answer"])
        continuations = continuations_of(example)
        assert continuations == {o: f"the correct answer is {o}" for o in options_of(example)}
        found[len(continuations)] = found.get(len(continuations), 0) + 1
    assert found == counts


def test_options_beyond_the_model_s_positions_are_refused() -> None:
    model, folder, _ = tiny("gpt2")
    tokenizer = base_model.load_tokenizer(folder)
    longer = choice("x" * 980, "a cat", "a dog", answer="answer2")
    with pytest.raises(
        DataError, match=rf"example {longer.id}: 10\d\d tokens .* the model has 1024 positions"
    ):
        score(model, tokenizer, [EXAMPLES[0], longer], PLAIN, 1020, 2, "test")
