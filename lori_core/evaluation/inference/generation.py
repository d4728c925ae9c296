"""Batched generation with a loaded base model, with or without an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
)

from lori_core.core.errors import DataError
from lori_core.core.progress import bar
from lori_core.evaluation.inference.decoding import model_end_ids, plain, until_end
from lori_core.evaluation.inference.key_value_cache import growing_cache
from lori_core.evaluation.inference.packed_prompts import read_ahead
from lori_core.methods.limits import check_ids


@dataclass(frozen=True)
class Sampling:
    """Sampling settings.

    Attributes:
        temperature: the temperature; 0 for greedy decoding.
        top_p: the probability mass of nucleus sampling.
        seed: the seed; samples also depend on which outputs share a batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()
#: The tokens that are generated before rows that have ended are left out, and the least share of
#: the rows that have then ended: leaving rows out copies the keys and values of the others.
STEPS, LEFT_OUT = 4, 0.25


@dataclass(frozen=True)
class Request:
    """A prompt to generate outputs for.

    Attributes:
        prompt: the prompt's token ids.
        limit: the maximum number of new tokens.
        samples: the number of outputs.
        sampling: the sampling settings.
    """

    prompt: list[int]
    limit: int
    samples: int = 1
    sampling: Sampling = GREEDY


@dataclass(frozen=True)
class Output:
    """An output before its first end-of-sequence token: its text and its number of tokens."""

    text: str
    tokens: int


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, requests: Sequence[Request], batch_size: int, what: str
) -> list[list[Output]]:
    """Generate outputs for each request, in batches of prompts with similar lengths.

    Args:
        model: a causal LM, with or without an adapter.
        tokenizer: its tokenizer.
        requests: the prompts.
        batch_size: outputs in a batch.
        what: the progress bar's name.

    Returns:
        For each request its `samples` outputs.

    Raises:
        DataError: a prompt has no tokens, or a token that the model has no embedding for.
    """
    # A request with a limit of 0 tokens gets empty outputs.
    results = [[Output("", 0)] * (0 if r.limit else r.samples) for r in requests]
    rows = [row for row, r in enumerate(requests) if r.limit for _ in range(r.samples)]
    groups = [(requests[index].limit, requests[index].sampling) for index in rows]
    lengths = [len(requests[index].prompt) for index in rows]
    check_prompts(requests, what)
    check_ids(max((max(r.prompt, default=0) for r in requests), default=0), model, what)
    pad, ends = tokenizer.pad_token_id or 0, model_end_ids(tokenizer, model)
    with (
        contiguous_head(model),
        plain(model),
        seeded(requests),
        bar(len(rows), what, "example") as progress,
    ):
        for batch in length_batches(lengths, batch_size, groups):
            members = [rows[place] for place in batch]
            outputs = _one_batch(model, [requests[index] for index in members], pad, ends)
            for index, ids in zip(members, outputs, strict=True):
                results[index].append(output(tokenizer, ids))
            progress.update(len(batch))
    return results


def check_prompts(requests: Sequence[Request], what: str) -> None:
    """Refuse prompts without tokens, whose output would depend on the rest of the batch.

    Raises:
        DataError: a prompt has no tokens.
    """
    if any(request.limit and not request.prompt for request in requests):
        raise DataError(
            f"{what}: a prompt has no tokens, so nothing can follow; leave empty prompts out, or "
            "set prompt.template to alpaca"
        )


def output(tokenizer: Any, ids: list[int]) -> Output:
    """Return generated tokens as an `Output`; special tokens are removed, spaces are kept."""
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Output(text, len(ids))


@contextmanager
def seeded(requests: Sequence[Request]) -> Iterator[None]:
    """Seed torch with the requests' seed, and restore the previous random state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(requests[0].sampling.seed if requests else 0)
        yield


@contextmanager
def contiguous_head(model: Any) -> Iterator[None]:
    """Pass contiguous hidden states to the output layer while generating.

    The last position of a prefill is a strided view, for which torch's CPU matmul copies the output
    matrix for each row of the batch: 4 s of a 5 s prefill with 64 rows.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: tuple(states.contiguous() for states in inputs)
    )
    try:
        yield
    finally:
        hook.remove()


def length_batches(
    lengths: Sequence[int], size: int, groups: Sequence[object] | None = None
) -> list[list[int]]:
    """Group rows into batches of similar lengths, which limits padding.

    Args:
        lengths: the length of each row (tokens).
        size: the maximum number of rows in a batch.
        groups: a key for each row; rows with different keys are never in one batch.

    Returns:
        The batches, as lists of row numbers.
    """
    batches: dict[object, list[list[int]]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        group = batches.setdefault(groups[row] if groups else None, [[]])
        last = group[-1]
        if last and (len(last) == size or lengths[row] > 2 * lengths[last[0]] + 16):
            group.append([])
        group[-1].append(row)
    return [batch for group in batches.values() for batch in group]


class TopP(LogitsProcessor):
    """Nucleus sampling with the same result as transformers' `TopPLogitsWarper`, but faster.

    `TopPLogitsWarper` sorts the whole vocabulary in each step, which takes three times as long as
    the forward pass of a small model. This class only sorts as many tokens as `top_p` needs.
    """

    def __init__(self, top_p: float) -> None:
        self._top_p = top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [rows, vocabulary] with those of tokens outside the nucleus at -inf."""
        probabilities = scores.softmax(-1, dtype=torch.float32)
        size, everything = 256, scores.shape[-1]
        while True:
            top = probabilities.topk(min(size, everything)).values
            before = top.cumsum(-1) - top
            if size >= everything or bool((before[:, -1] >= self._top_p).all()):
                break
            size *= 8
        count = (before < self._top_p).sum(-1, keepdim=True)
        least = top.gather(-1, count - 1)
        return scores.masked_fill(probabilities < least, -torch.inf)


def _processors(sampling: Sampling) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if sampling.temperature > 0 and sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.temperature > 0 and sampling.top_p < 1:
        processors.append(TopP(sampling.top_p))
    return processors


def _one_batch(
    model: Any, requests: Sequence[Request], pad: int, ends: Sequence[int]
) -> list[list[int]]:
    """Generate with prompts padded on the left; return each row's new tokens before its end.

    On a CPU, where a step takes the longer, the more rows it has, rows that have ended are left out
    of later steps.
    """
    longest = max(len(request.prompt) for request in requests)
    gaps = [longest - len(request.prompt) for request in requests]
    padded = [[pad] * gap + request.prompt for gap, request in zip(gaps, requests, strict=True)]
    known = [[0] * gap + [1] * len(r.prompt) for gap, r in zip(gaps, requests, strict=True)]
    ids = torch.tensor(padded, device=model.device)
    mask = torch.tensor(known, device=model.device)
    cache = growing_cache(model)
    read_ahead(cache, model, [request.prompt for request in requests])
    limit, sampling = longest + requests[0].limit, requests[0].sampling
    steps = limit if cache is None or model.device.type != "cpu" else STEPS
    rows = torch.arange(len(requests), device=model.device)
    end_ids = torch.tensor(list(ends), dtype=ids.dtype, device=model.device)
    written: dict[int, list[int]] = {}
    while len(written) < len(requests):
        ids = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=_config(min(steps, limit - ids.shape[1]), sampling, pad, ends),
            logits_processor=_processors(sampling),
        )
        mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
        ended = torch.isin(ids[:, longest:], end_ids).any(1)
        if ids.shape[1] >= limit or ended.all():
            ended[:] = True
        elif ended.sum() < LEFT_OUT * len(rows):
            continue
        for row, tokens in zip(rows[ended].tolist(), ids[ended, longest:].tolist(), strict=True):
            written[row] = until_end(tokens, ends)
        ids, mask, rows = ids[~ended], mask[~ended], rows[~ended]
        if cache is not None:
            cache.batch_select_indices(~ended)
    return [written[row] for row in range(len(requests))]


def _config(steps: int, sampling: Sampling, pad: int, ends: Sequence[int]) -> GenerationConfig:
    drawn = sampling.temperature > 0
    return GenerationConfig(
        max_new_tokens=steps,
        do_sample=drawn,
        # Our processors run before those that these settings would add, so the temperature must be
        # among ours.
        temperature=1.0 if drawn else None,
        top_p=1.0 if drawn else None,
        top_k=0 if drawn else None,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=list(ends) or None,
    )
