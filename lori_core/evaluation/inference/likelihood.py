"""Multiple choice by log-likelihood: the model's choice is the option with the highest likelihood.

An additional score (paper, section 3.1). Nothing is generated or parsed, so a model that knows the
answer but not its format is not penalised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch.nn import functional

from lori_core.config import PromptSection
from lori_core.core.errors import DataError
from lori_core.core.progress import bar
from lori_core.data.answers import expected_answer, parse_choice
from lori_core.data.example import Example
from lori_core.data.prompts import encode_prompt, text_ids
from lori_core.evaluation.inference.generation import contiguous_head, length_batches
from lori_core.methods.limits import check_row

_FORMAT = re.compile(r"\banswer format: *(\S+)", re.I)
_LABEL = re.compile(r"\b((?:answer|solution|option|ending)[1-5]):", re.I)
_BOOLEAN = re.compile(r"\btrue(?:/| or )false\b", re.I)
#: The padding token. Padding is masked or comes after all tokens that count, so any id works.
_PAD = 0


@dataclass(frozen=True)
class Choice:
    """The model's choice for one example.

    Attributes:
        picked: the option with the highest log-probability per token; the first of equal ones.
        correct: whether `picked` is the answer.
        logprobs: for each option the log-probability of its continuation (nats, summed over its
            tokens).
        cut: whether the prompt was truncated.
        per_token: `logprobs`, each divided by its continuation's number of tokens.
    """

    picked: str
    correct: bool
    logprobs: dict[str, float]
    cut: bool
    per_token: dict[str, float]


def options_of(example: Example) -> list[str]:
    """Return the possible answers, in lower case: `answer1`, `answer2`, … or `true`, `false`.

    They are read from the prompt: its last `Answer format: a/b/…`, otherwise its labels
    (`Answer1:`, `Solution1:`, `Option1:`, `Ending1:`, …), otherwise `true/false` or
    `true or false`.

    Raises:
        DataError: the example's scorer is not `choice`, its prompt names fewer than two options,
            or the answer is not one of the options.
    """
    if example.scorer != "choice":
        raise DataError(
            f"example {example.id}: scorer {example.scorer!r} (log-likelihood is for: choice)"
        )
    options = _named_options(example.prompt)
    if len(options) < 2:
        raise DataError(
            f"example {example.id}: the prompt names {len(options)} options, at least 2 are needed "
            "(end it with, for instance, 'Answer format: answer1/answer2')"
        )
    if expected_answer(example, f"example {example.id}") not in options:
        raise DataError(
            f"example {example.id}: the answer {example.answer!r} is none of its options "
            f"({', '.join(options)})"
        )
    return options


def _named_options(prompt: str) -> list[str]:
    formats = _FORMAT.findall(prompt)
    names = formats[-1].split("/") if formats else _LABEL.findall(prompt)
    options = list(dict.fromkeys(filter(None, map(parse_choice, names))))
    return options or (["true", "false"] if _BOOLEAN.search(prompt) else [])


def continuations_of(example: Example) -> dict[str, str]:
    """Return for each option the example's target with that option as the answer.

    `the correct answer is answer1` becomes `the correct answer is answer2`. If the target also has
    the option's text (`the correct answer is a cat, answer1`), the text is replaced as well. For an
    example without a target, the continuation is the option itself.

    Raises:
        DataError: as `options_of`; or the target does not name the answer.
    """
    options = options_of(example)
    if not example.target:
        return {option: option for option in options}
    gold = expected_answer(example, f"example {example.id}")
    texts = _option_texts(example.prompt, options)
    # The longest form first, because the others contain the bare answer as well.
    for form in ("{text}, {name}", "{name}: {text}", "{name}"):
        if "{text}" in form and not texts.get(gold):
            continue
        mention = form.format(name=gold, text=texts.get(gold, ""))
        match = re.search(rf"(?<!\w){re.escape(mention)}(?!\w)", example.target, re.I)
        if match:
            before, after = example.target[: match.start()], example.target[match.end() :]
            return {
                option: before + form.format(name=option, text=texts.get(option, "")) + after
                for option in options
            }
    raise DataError(
        f"example {example.id}: the target does not name the answer {gold!r}: {example.target!r}"
    )


def _option_texts(prompt: str, options: Sequence[str]) -> dict[str, str]:
    """Return the text after each option's label; empty if an option has no label."""
    formats = list(_FORMAT.finditer(prompt))
    end = formats[-1].start() if formats else len(prompt)
    texts = {}
    # From the end, because the question may contain "answer1:" as well.
    for option in reversed(options):
        start = prompt.lower().rfind(f"{option}:", 0, end)
        if start < 0:
            return {}
        texts[option] = prompt[start + len(option) + 1 : end].strip()
        end = start
    return texts


@dataclass(frozen=True)
class _Question:
    """The token ids of an example.

    Attributes:
        shared: the prompt, followed by the tokens with which all continuations begin.
        common: the number of these common tokens of the continuations.
        own: for each option the rest of its continuation, at least one token.
        cut: whether the prompt was truncated.
    """

    shared: list[int]
    common: int
    own: dict[str, list[int]]
    cut: bool


@torch.inference_mode()
def score(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    prompt_section: PromptSection,
    max_prompt_length: int,
    batch_size: int,
    what: str,
) -> list[Choice]:
    """Return for each example the option that the model finds most likely.

    With x the prompt and y_1 … y_n the tokens of an option's continuation (`continuations_of`,
    without the end-of-sequence token), the option's score is
    `1/n · Σ_t log p(y_t | x, y_1 … y_{t-1})`, normalised by the length in tokens.

    The first forward pass computes the prompt and the common first tokens of the continuations. If
    the options differ in more than one token, a second pass computes the rest of all options with
    the cached keys and values; it holds `batch_size` times the number of options caches.

    Args:
        model: a causal LM, with or without an adapter.
        tokenizer: its tokenizer.
        examples: the examples, all with the scorer `choice`.
        prompt_section: the prompt template, as in training.
        max_prompt_length: in tokens; longer prompts are truncated by `encode_prompt`.
        batch_size: examples in a batch.
        what: the progress bar's name.

    Raises:
        DataError: an example's options cannot be found (`options_of`, `continuations_of`), or are
            longer than the model's context.
    """
    questions = [
        _tokenize(example, tokenizer, prompt_section, max_prompt_length) for example in examples
    ]
    for example, question in zip(examples, questions, strict=True):
        longest = max(map(len, question.own.values()))
        check_row(len(question.shared) + longest, model, f"example {example.id}")
    results: dict[int, Choice] = {}
    with contiguous_head(model), _float32_logits(model), bar(len(examples), what, "example") as on:
        for rows in length_batches([len(q.shared) for q in questions], batch_size):
            sums = _one_batch(model, [questions[row] for row in rows])
            for row, logprobs in zip(rows, sums, strict=True):
                results[row] = _choose(examples[row], questions[row], logprobs)
            on.update(len(rows))
    return [results[row] for row in range(len(examples))]


@contextmanager
def _float32_logits(model: Any) -> Iterator[None]:
    """Compute a half-precision output layer in float32.

    At logits of 16 to 32, bfloat16 has steps of 1/8: options that differ in one token would tie (2
    of 60 ARC questions with a 135M model), and the first one would be picked.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32:
        yield
        return
    exact, bias = head.weight.float(), None if head.bias is None else head.bias.float()
    hook = head.register_forward_hook(
        lambda _, inputs, __: functional.linear(inputs[0].float(), exact, bias)
    )
    try:
        yield
    finally:
        hook.remove()


def _tokenize(example: Example, tokenizer: Any, section: PromptSection, length: int) -> _Question:
    prompt, cut = encode_prompt(example.prompt, section, tokenizer, length)
    if not prompt:
        raise DataError(f"example {example.id}: its prompt has no tokens; leave the example out")
    ids = {option: text_ids(text, tokenizer) for option, text in continuations_of(example).items()}
    columns = zip(*(tokens[:-1] for tokens in ids.values()), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    own = {option: tokens[len(shared) :] for option, tokens in ids.items()}
    return _Question(prompt + shared, len(shared), own, cut)


def _choose(example: Example, question: _Question, logprobs: dict[str, float]) -> Choice:
    per_token = {
        option: total / (question.common + len(question.own[option]))
        for option, total in logprobs.items()
    }
    picked = max(per_token, key=per_token.__getitem__)
    correct = picked == expected_answer(example, f"example {example.id}")
    return Choice(picked, correct, logprobs, question.cut, per_token)


def _one_batch(model: Any, questions: list[_Question]) -> list[dict[str, float]]:
    """Return for each question of a batch the sums of log-probabilities (nats) of its options."""
    longest = max(len(question.shared) for question in questions)
    gaps = [longest - len(question.shared) for question in questions]
    ids = [[_PAD] * gap + q.shared for gap, q in zip(gaps, questions, strict=True)]
    mask = [[0] * gap + [1] * len(q.shared) for gap, q in zip(gaps, questions, strict=True)]
    # The prompt's last token predicts the first common token; the last common token predicts the
    # first own token.
    needed = max(question.common for question in questions) + 1
    logprobs, cache = _forward(model, ids, mask, None, needed)
    sums = []
    for row, question in enumerate(questions):
        places = logprobs[row, needed - 1 - question.common :]
        shared = question.shared[len(question.shared) - question.common :]
        before, last = _sum(places, shared), places[-1]
        sums.append({option: before + float(last[own[0]]) for option, own in question.own.items()})
    _add_rest(model, questions, sums, mask, cache)
    return sums


def _add_rest(
    model: Any, questions: list[_Question], sums: list[dict[str, float]], mask: Any, cache: Any
) -> None:
    """Add to `sums` the options' own tokens after the first, computed on the cached prompts."""
    rest = [
        (row, option, own)
        for row, question in enumerate(questions)
        for option, own in question.own.items()
        if len(own) > 1
    ]
    if not rest:
        return
    cache.batch_select_indices(torch.tensor([row for row, _, _ in rest], device=model.device))
    longest = max(len(own) for _, _, own in rest) - 1
    ids = [own[:-1] + [_PAD] * (longest - len(own) + 1) for _, _, own in rest]
    # Attention is causal, so padding on the right needs no mask.
    masks = [mask[row] + [1] * longest for row, _, _ in rest]
    logprobs, _ = _forward(model, ids, masks, cache, longest)
    for at, (row, option, own) in enumerate(rest):
        sums[row][option] += _sum(logprobs[at], own[1:])


def _sum(logprobs: torch.Tensor, tokens: list[int]) -> float:
    """Return the sum of the log-probabilities of tokens, the first at the first place."""
    return sum(float(place[token]) for place, token in zip(logprobs, tokens, strict=False))


def _forward(
    model: Any, ids: list[list[int]], mask: list[list[int]], cache: Any, needed: int
) -> tuple[torch.Tensor, Any]:
    """Return log-probabilities of the next tokens [rows, needed, vocabulary], and the cache."""
    attention = torch.tensor(mask, device=model.device)
    # Padding has no position.
    positions = (attention.cumsum(1) - 1).clamp(min=0)[:, -len(ids[0]) :]
    output = model(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=attention,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=needed,
    )
    return torch.log_softmax(output.logits.float(), dim=-1), output.past_key_values
