"""The cache of keys and values holds what that of transformers does, without its copies."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, MambaConfig, MambaForCausalLM
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lori_core.evaluation.inference.key_value_cache import STEP, GrowingLayer, growing_cache
from support import tiny


def states(positions: int, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random keys and values of some positions."""
    return torch.randn(rows, 3, positions, 4), torch.randn(rows, 3, positions, 4)


@pytest.mark.parametrize("lengths", [[5], [5, 1, 1], [1, STEP, 1, 3 * STEP, 1], [STEP] * 3])
def test_a_layer_holds_what_transformers_layer_holds(lengths: list[int]) -> None:
    ours, theirs = GrowingLayer(), DynamicLayer()
    for length in lengths:
        new = states(length)
        for one, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(one, other)
    assert ours.get_seq_length() == theirs.get_seq_length() == sum(lengths)


def test_a_new_token_copies_no_earlier_position() -> None:
    layer = GrowingLayer()
    before = layer.update(*states(5))
    for _ in range(STEP):
        after = layer.update(*states(1))
    assert [t.data_ptr() for t in after] == [t.data_ptr() for t in before]
    assert layer.update(*states(1))[0].data_ptr() != before[0].data_ptr()  # the room is used up


def test_positions_may_be_cropped_and_rows_selected() -> None:
    ours, theirs = GrowingLayer(), DynamicLayer()
    for layer in (ours, theirs):
        torch.manual_seed(0)
        layer.update(*states(7))
        layer.crop(-2)
        layer.update(*states(1))
        layer.batch_select_indices(torch.tensor([1]))
        layer.update(*states(1, rows=1))
        layer.reset()
        layer.update(*states(2))
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)


def test_only_layers_that_attend_to_all_positions_are_replaced() -> None:
    full = growing_cache(tiny("llama")[0])
    assert full is not None
    assert {type(layer) for layer in full.layers} == {GrowingLayer}
    config = Gemma2Config(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    windows = growing_cache(Gemma2ForCausalLM(config))
    assert windows is not None
    assert {type(layer) for layer in windows.layers} == {GrowingLayer, DynamicSlidingWindowLayer}


def test_a_model_with_another_state_gets_the_cache_of_transformers() -> None:
    config = MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=2)
    assert growing_cache(MambaForCausalLM(config)) is None
