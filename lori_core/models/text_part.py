"""Find the parts of a model that text inputs do not reach, and that training on text cannot use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

#: transformers' names of cross-attention to an encoder's states, which text inputs do not have.
_CROSS_ATTENTION = {"cross_attn", "crossattention", "cross_attention", "encoder_attn"}


def beyond_text(model: nn.Module) -> list[str]:
    """Return the names of the parts of a causal language model that text inputs do not reach.

    These are vision and audio towers, projectors, and cross-attention to an encoder's states; a
    layer with no other attention than cross-attention counts as a whole.
    """
    return [*_beside_the_language_model(model), *_cross_attention(model)]


def part_of(name: str, parts: Iterable[str]) -> str | None:
    """Return the one of `parts` that contains a module; None if no part does."""
    return next((part for part in parts if f"{name}.".startswith(f"{part}.")), None)


def _beside_the_language_model(model: Any) -> Iterator[str]:
    if not hasattr(model, "get_decoder"):
        return
    decoder, outer = model.get_decoder(), getattr(model, model.base_model_prefix, None)
    names = {id(module): name for name, module in model.named_modules()}
    path, top = names.get(id(decoder), ""), names.get(id(outer), "")
    if not top or not path.startswith(f"{top}."):
        return
    place = top
    for step in path.removeprefix(f"{top}.").split("."):
        for name, _ in model.get_submodule(place).named_children():
            if name != step:
                yield f"{place}.{name}"
        place = f"{place}.{step}"


def _cross_attention(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        children = [child for child, _ in module.named_children()]
        cross = [child for child in children if child in _CROSS_ATTENTION]
        others = [c for c in children if "att" in c and c not in cross and "norm" not in c]
        if cross and not others:
            yield name
        else:
            yield from (f"{name}.{child}".lstrip(".") for child in cross)
