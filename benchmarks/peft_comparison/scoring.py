"""The comparison's metrics: accuracy on GSM8K by generation, and the loss on Wikipedia."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils import parametrize

from benchmarks.peft_comparison.answers import is_right
from benchmarks.peft_comparison.settings import TrainConfig
from lori_core.data.batching import collate
from lori_core.data.prompts import Encoded, ids_with_bos
from lori_core.evaluation.inference.generation import Request, generate
from lori_core.training.loss import example_losses


def accuracy(
    model: Any,
    tokenizer: Any,
    questions: Sequence[tuple[str, str]],
    config: TrainConfig,
    what: str,
) -> float:
    """Return the share of questions whose greedy output ends in the solution's answer.

    Args:
        model: the model in evaluation mode, with or without an adapter.
        tokenizer: its tokenizer.
        questions: (question, solution) pairs.
        config: gives template, lengths and batch size.
        what: the progress bar's name.
    """
    prompts = [config.query_template.format(query=question) for question, _ in questions]
    limits = config.generation_kwargs
    requests = []
    for prompt in prompts:
        ids = ids_with_bos(prompt, tokenizer)[: config.max_seq_length]
        room = limits["max_length"] - len(ids)
        requests.append(Request(ids, min(limits["max_new_tokens"], room)))
    with parametrize.cached():  # B is computed from its trained values once
        outputs = generate(model, tokenizer, requests, config.batch_size_eval, what)
    right = [
        is_right(prompt + own[0].text, solution)
        for prompt, own, (_, solution) in zip(prompts, outputs, questions, strict=True)
    ]
    return sum(right) / len(right)


@torch.inference_mode()
def article_loss(model: Any, tokenizer: Any, articles: Sequence[str], config: TrainConfig) -> float:
    """Return the mean loss (nats) of the tokens of texts, each cut to `max_seq_length` tokens.

    Args:
        model: the model in evaluation mode, with or without an adapter.
        tokenizer: its tokenizer.
        articles: the texts.
        config: gives length and batch size; that of training, so that the peak memory is not that
            of this measurement.
    """
    total, count = 0.0, 0
    rows = [ids_with_bos(text, tokenizer)[: config.max_seq_length] for text in articles]
    encoded = [Encoded(row[:1], row[1:], False) for row in rows if len(row) > 1]
    for start in range(0, len(encoded), config.batch_size):
        part = encoded[start : start + config.batch_size]
        inputs = collate(part, tokenizer.eos_token_id)
        moved = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        with parametrize.cached():
            total += float(example_losses(model, moved).sum())
        count += sum(row.supervised for row in part)
    return total / count
