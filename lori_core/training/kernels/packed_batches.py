"""Batches for a forward pass without training: packed where the model takes them, else padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from lori_core.data.batching import collate
from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded
from lori_core.training.kernels import packed_attention

#: Configuration keys of models that change the logits after `lm_head`; for these, the model's own
#: forward pass computes the logits.
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
#: Whether the forward pass of a base model takes packed batches.
_packs: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def changes_logits(base: Any) -> bool:
    """Return whether a model changes its logits after `lm_head`, according to its config."""
    config = base.config.get_text_config()
    return any(getattr(config, name, None) for name in _LOGIT_CHANGES)


def takes_packed(model: Any) -> bool:
    """Return whether a base model takes packed batches; its forward pass is tried once."""
    if changes_logits(model):
        return False
    if model not in _packs:
        _packs[model] = packed_attention.unsupported_reason(model) is None
    return _packs[model]


@contextmanager
def batches_of(
    model: Any, pad_token_id: int, packed: bool
) -> Iterator[Callable[[Sequence[Encoded]], Mapping[str, Any]]]:
    """Yield the function that makes a batch.

    Args:
        model: the base model; packed batches replace its attention inside the block.
        pad_token_id: for padded batches.
        packed: whether batches are packed, see `takes_packed`; else they are padded.
    """
    if not packed:
        yield partial(collate, pad_token_id=pad_token_id)
        return
    with packed_attention.attending(model):
        yield pack_batch


def on_device(inputs: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """Return a batch with its tensors on a device."""
    return {n: x.to(device) if isinstance(x, Tensor) else x for n, x in inputs.items()}
