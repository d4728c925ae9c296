"""Batched greedy generation with any adapter on one loaded base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lori_core.config import EvaluationSection, PromptSection
from lori_core.data.example import Example
from lori_core.data.prompts import encode_prompt
from lori_core.progress import bar


@dataclass(frozen=True)
class Generation:
    """What the model wrote for one example, and whether its prompt had to be cut."""

    text: str
    tokens: int
    cut: bool


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    prompt: PromptSection,
    section: EvaluationSection,
    what: str,
) -> list[Generation]:
    """Generate greedily for each example, in its order; prompts of like length share a batch.

    Args:
        model: a causal LM, with or without an adapter.
        tokenizer: its tokenizer.
        examples: what to answer; each scorer has its own limit of new tokens.
        prompt: how prompts are rendered, as in training.
        section: batch size and limits.
        what: the progress bar's name.
    """
    encoded = [
        encode_prompt(example.prompt, prompt, tokenizer, section.max_prompt_length)
        for example in examples
    ]
    results: dict[int, Generation] = {}
    with _contiguous_head(model), bar(len(examples), what, "example") as progress:
        for rows in _batches(examples, [len(ids) for ids, _ in encoded], section.batch_size):
            limit = getattr(section.max_new_tokens, examples[rows[0]].scorer)
            outputs = _one_batch(model, tokenizer, [encoded[row][0] for row in rows], limit)
            for row, ids in zip(rows, outputs, strict=True):
                text = tokenizer.decode(ids, skip_special_tokens=True)
                results[row] = Generation(text, len(ids), encoded[row][1])
            progress.update(len(rows))
    return [results[row] for row in range(len(examples))]


@contextmanager
def _contiguous_head(model: Any) -> Iterator[None]:
    """Hand the output layer contiguous states while generating.

    The last position of a prefill is a strided view, for which torch's CPU matmul copies the whole
    output matrix once for each row of the batch: 4 s of a 5 s prefill at 64 rows.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: tuple(states.contiguous() for states in inputs)
    )
    try:
        yield
    finally:
        hook.remove()


def _batches(examples: Sequence[Example], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Group rows of one scorer by prompt length; none is padded to much more than its own."""
    batches: dict[str, list[list[int]]] = {}
    for row in sorted(range(len(examples)), key=lambda row: lengths[row]):
        groups = batches.setdefault(examples[row].scorer, [[]])
        last = groups[-1]
        if last and (len(last) == size or lengths[row] > 2 * lengths[last[0]] + 16):
            groups.append([])
        groups[-1].append(row)
    return [group for groups in batches.values() for group in groups]


def _one_batch(model: Any, tokenizer: Any, prompts: list[list[int]], limit: int) -> list[list[int]]:
    """Generate for prompts padded on the left; returns each row up to its end-of-sequence token."""
    longest = max(len(ids) for ids in prompts)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    written = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=limit,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=end,
    )[:, longest:].tolist()
    return [row[: row.index(end)] if end in row else row for row in written]
