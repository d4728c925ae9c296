"""A cache of keys and values that grows in steps: a new token copies no earlier position.

`transformers.DynamicLayer` concatenates the cached keys and values with those of each new token,
which takes the longer, the longer the outputs are (`docs/performance.md`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

#: Positions by which a layer's memory grows.
STEP = 64


class GrowingLayer(DynamicLayer):
    """A layer whose keys and values are views of memory that has room for more positions."""

    def __init__(self) -> None:
        super().__init__()
        self._memory: tuple[Tensor, Tensor] | None = None
        self._views: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new positions, and return the keys and values of all of them.

        Args:
            key_states: the new keys [rows, heads, positions, size].
            value_states: the new values [rows, heads, positions, size].
            args: not used.
            kwargs: not used.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        length = start + key_states.shape[-2]
        memory = self._memory_for(length, (key_states, value_states))
        for held, new in zip(memory, (key_states, value_states), strict=True):
            held[:, :, start:length] = new
        self.keys, self.values = (held[:, :, :length] for held in memory)
        self._memory, self._views = memory, (self.keys, self.values)
        return self._views

    def _memory_for(self, length: int, new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return memory for `length` positions, with the cached ones in it."""
        # Cropped or reordered keys are other tensors than those that `update` returned last.
        views, memory = self._views, self._memory
        if (
            memory is not None
            and views is not None
            and views[0] is self.keys
            and views[1] is self.values
            and memory[0].shape[-2] >= length
        ):
            return memory
        return self._grown(self.keys, length, new[0]), self._grown(self.values, length, new[1])

    @staticmethod
    def _grown(cached: Tensor, length: int, new: Tensor) -> Tensor:
        rows, heads, _, size = new.shape
        grown = new.new_empty((rows, heads, length + STEP, size))
        if cached.numel():
            grown[:, :, : cached.shape[-2]] = cached
        return grown


def growing_cache(model: Any) -> DynamicCache | None:
    """Return an empty cache for a model, or None if transformers has to choose the cache.

    Args:
        model: a causal LM, with or without an adapter.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    supported = getattr(base, "_supports_default_dynamic_cache", None)
    if supported is None or not supported():
        return None
    cache = DynamicCache(config=base.config.get_text_config(decoder=True))
    if not {type(layer) for layer in cache.layers} <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return None
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
