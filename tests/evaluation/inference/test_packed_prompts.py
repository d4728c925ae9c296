"""Prompts read packed give the keys, values and outputs of prompts read padded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from lori_core.evaluation.inference import packed_prompts
from lori_core.evaluation.inference.generation import GREEDY, Request, generate
from lori_core.evaluation.inference.key_value_cache import growing_cache
from lori_core.evaluation.inference.packed_prompts import read_ahead
from lori_core.models import base_model
from lori_core.training.kernels import packed_batches
from support import tiny

#: Of several lengths; two pairs with a common beginning, two that are equal.
PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [11, 12], [5, 6, 7, 8, 9], [13] * 12, [11, 14, 15]]


def padded(model: Any, prompts: list[list[int]]) -> DynamicCache:
    """Return the cache of all tokens but the last, read padded on the left."""
    longest = max(map(len, prompts)) - 1
    rows = [[0] * (longest + 1 - len(prompt)) + prompt[:-1] for prompt in prompts]
    mask = torch.tensor([[0] * (longest + 1 - len(p)) + [1] * (len(p) - 1) for p in prompts])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache: DynamicCache = model(
        input_ids=torch.tensor(rows), attention_mask=mask, position_ids=positions, use_cache=True
    ).past_key_values
    return cache


@torch.inference_mode()
def test_keys_and_values_are_those_of_padded_prompts() -> None:
    model = tiny("llama")[0]
    ours, theirs = growing_cache(model), padded(model, PROMPTS)
    read_ahead(ours, model, PROMPTS)
    assert ours is not None
    assert ours.get_seq_length() == theirs.get_seq_length() == 11
    for layer, expected in zip(ours.layers, theirs.layers, strict=True):
        for row, prompt in enumerate(PROMPTS):
            last = 1 - len(prompt)
            torch.testing.assert_close(layer.keys[row, :, last:], expected.keys[row, :, last:])
            torch.testing.assert_close(layer.values[row, :, last:], expected.values[row, :, last:])


def test_outputs_are_those_of_padded_prompts(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder, _ = tiny(architecture)
    tokenizer = base_model.load_tokenizer(folder)
    requests = [Request(prompt, 8, 2 if prompt[0] == 13 else 1, GREEDY) for prompt in PROMPTS]
    ours = generate(model, tokenizer, requests, 8, "test")
    monkeypatch.setattr(packed_prompts, "_suits", lambda *_: False)
    assert ours == generate(model, tokenizer, requests, 8, "test")


@torch.inference_mode()
@pytest.mark.parametrize("prompts", [[[5]], [[5, 6, 7], [8]]])
def test_a_single_token_is_left_to_transformers(prompts: list[list[int]]) -> None:
    model = tiny("llama")[0]
    cache = growing_cache(model)
    read_ahead(cache, model, prompts)
    assert cache is not None
    assert cache.get_seq_length() == 0


@torch.inference_mode()
def test_models_that_take_no_packed_batches_read_padded_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny("llama")[0]
    read_ahead(None, model, PROMPTS)  # transformers chooses the cache
    monkeypatch.setitem(packed_batches._packs, model, False)
    cache = growing_cache(model)
    read_ahead(cache, model, PROMPTS)
    assert cache is not None
    assert cache.get_seq_length() == 0


@torch.inference_mode()
def test_windows_of_attention_are_left_to_transformers() -> None:
    model = tiny("llama")[0]
    model.config.sliding_window, model.config.layer_types = 4, ["sliding_attention"] * 2
    try:
        cache = growing_cache(model)
        read_ahead(cache, model, PROMPTS)
        assert cache is not None
        assert cache.get_seq_length() == 0
    finally:
        del model.config.sliding_window, model.config.layer_types
