"""Compute with an applied adapter as fast as with its base alone, where that changes nothing else.

In float32 the sum W + ΔW is as exact as the adapter's own branch, s·B(A x), which costs time in
every layer: a merge of four adapters of rank 32 adds two fifths to the products of a small base.
In 16 bits the sum would lose a part of ΔW, and in GPU memory there is rarely room for copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from lori_core.models import peft_names

#: The largest share of the available memory that the copies of weights may take.
SHARE = 0.25


@contextmanager
def added_to_weights(wrapped: Any) -> Iterator[None]:
    """Add a low-rank adapter's updates to the base's weights inside the `with` block.

    Only weights in float32 on a CPU that no other module shares are replaced, all or none of them:
    all if a quarter of the available memory has room for their copies. Other layers compute the
    adapter's branch. Afterwards the base has its own weights again, bit by bit.

    Args:
        wrapped: a PEFT model with the adapter applied (`attach.apply_adapter`).
    """
    uses = Counter(id(weight) for _, weight in wrapped.named_parameters(remove_duplicate=False))
    layers = [layer for layer in peft_names.lora_layers(wrapped).values() if _is_exact(layer, uses)]
    size = sum(layer.get_base_layer().weight.nbytes for layer in layers)
    if size > SHARE * psutil.virtual_memory().available:
        layers = []
    before = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer in layers:
            weight = layer.get_base_layer().weight
            weight.data = weight.data + layer.get_delta_weight(peft_names.ADAPTER)
            layer.merged_adapters.append(peft_names.ADAPTER)  # PEFT then computes no branch
        yield
    finally:
        for layer, weights in zip(layers, before, strict=True):
            layer.get_base_layer().weight.data = weights
            layer.merged_adapters.clear()


def _is_exact(layer: Any, uses: Counter[int]) -> bool:
    weight = layer.get_base_layer().weight
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and uses[id(weight)] == 1
