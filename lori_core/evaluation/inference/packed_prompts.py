"""Read a batch of prompts packed: without padding, and with each shared prefix computed once.

Prompts of one task often begin with the same tokens, and differ in length. On a CPU, reading them
takes longer than all that is generated after them if answers are short (`docs/performance.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from lori_core.data.packing import nodes_of, pack_batch
from lori_core.data.prompts import Encoded
from lori_core.evaluation.inference.key_value_cache import GrowingLayer
from lori_core.training.kernels.packed_attention import Packing, attending, backbone
from lori_core.training.kernels.packed_batches import on_device, takes_packed


def read_ahead(cache: DynamicCache | None, model: Any, prompts: Sequence[Sequence[int]]) -> None:
    """Put the keys and values of all tokens of the prompts but their last into an empty cache.

    The cache stays empty on a GPU, for models that take no packed batches or have layers that do
    not attend to all positions, and if a prompt has a single token. Then, as ever, the first
    forward pass of `generate` reads the prompts.

    Args:
        cache: the cache; None if transformers has to choose it.
        model: a causal LM, with or without an adapter.
        prompts: the token ids of each prompt; in the cache they are padded on the left.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if cache is None or not _suits(cache, base, prompts):
        return
    lengths = [len(prompt) - 1 for prompt in prompts]
    packed = pack_batch([Encoded(list(prompt[:-1]), [], False) for prompt in prompts])
    longest = max(lengths)
    index = torch.zeros(len(prompts), longest, dtype=torch.int64)  # padding is masked
    for row, nodes in enumerate(nodes_of(packed, lengths)):
        index[row, longest - len(nodes) :] = nodes
    packed = on_device(packed, base.device)
    of_nodes = DynamicCache()
    with attending(base):
        backbone(base)(
            input_ids=packed["input_ids"],
            position_ids=packed["position_ids"],
            past_key_values=of_nodes,
            use_cache=True,
            packing=Packing.of(packed),
        )
    for layer in cache.layers:
        nodes = of_nodes.layers.pop(0)  # whose memory is free before the next layer is copied
        layer.update(
            *(states[0][:, index].transpose(0, 1) for states in (nodes.keys, nodes.values))
        )


def _suits(cache: DynamicCache, base: Any, prompts: Sequence[Sequence[int]]) -> bool:
    return (
        base.device.type == "cpu"
        and all(type(layer) is GrowingLayer for layer in cache.layers)
        and min(map(len, prompts)) > 1
        and takes_packed(base)
    )
