"""Merging adapters: arithmetic on A and B, module by module, no base model (METHOD, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lori_core.adapter import Adapter, from_dense
from lori_core.errors import AdapterError, InputError, unknown
from lori_core.files import digest
from lori_core.mask import Mask, union

#: (A, B, weight, scaling) of each adapter for one module -> A and B of the merge, scaling 1.
Factors = tuple[Tensor, Tensor, float, float]
Combine = Callable[[Sequence[Factors]], tuple[Tensor, Tensor]]


def concat(factors: Sequence[Factors]) -> tuple[Tensor, Tensor]:
    """Stack along the rank: ΔW = Σ w·scaling·B@A exactly (eq. 5-6). Ranks may differ."""
    A = torch.cat([a for a, _, _, _ in factors])
    B = torch.cat([weight * scaling * b for _, b, weight, scaling in factors], dim=1)
    return A, B


def linear(factors: Sequence[Factors]) -> tuple[Tensor, Tensor]:
    """Add the factors, ΔW = (Σ √(w·scaling) B) @ (Σ √(w·scaling) A) (eq. 8, PEFT's convention).

    A negative weight's sign goes to B. Ranks must be equal.
    """
    roots = [math.sqrt(abs(weight) * scaling) for _, _, weight, scaling in factors]
    A = torch.stack([root * f[0] for root, f in zip(roots, factors, strict=True)]).sum(0)
    B = torch.stack(
        [math.copysign(root, f[2]) * f[1] for root, f in zip(roots, factors, strict=True)]
    ).sum(0)
    return A, B


METHODS: dict[str, Combine] = {"concat": concat, "linear": linear}


def merge(method: str, adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """Merge adapters of one base into one.

    Args:
        method: a name in `METHODS`.
        adapters: in order; all for the same base and modules.
        weights: one each; may be negative.

    Raises:
        InputError: for an unknown method, or weights that do not fit.
        AdapterError: for adapters of different bases, modules, or (linear) ranks.
    """
    if method not in METHODS:
        raise InputError(unknown("merge method", method, METHODS))
    if len(weights) != len(adapters) or not adapters:
        raise InputError(f"{len(weights)} weights for {len(adapters)} adapters; give one each")
    _check_alike(method, adapters)
    first = adapters[0]
    A, B = {}, {}
    for name in first.modules:
        A[name], B[name] = METHODS[method](
            [(a.A[name], a.B[name], w, a.scaling) for a, w in zip(adapters, weights, strict=True)]
        )
    keyed = method == "concat" and all(adapter.blocks for adapter in adapters)
    rank = next(iter(B.values())).shape[1]
    return from_dense(
        base=first.base,
        modules=first.modules,
        lora_alpha=rank,  # scaling 1: the parents' scalings are in B
        blocks=tuple(block for a in adapters for block in a.blocks) if keyed else (),
        B=B,
        mask=_merged_mask(method, adapters),
        dtype=torch.float32,
        stored=None if keyed else A,
        info={"method": method, "recipe": recipe(method, adapters, weights)},
        fan_in_fan_out=first.fan_in_fan_out,
    )


def recipe(method: str, adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, object]:
    """Return what a merge was made of; its digest is the merge's content key."""
    parents = [
        {"task": a.info.get("task"), "content_key": a.info.get("content_key"), "weight": w}
        for a, w in zip(adapters, weights, strict=True)
    ]
    return {
        "method": method,
        "parents": parents,
        "content_key": digest({"method": method, "parents": parents}),
    }


def _check_alike(method: str, adapters: Sequence[Adapter]) -> None:
    first = adapters[0]
    for adapter in adapters[1:]:
        if (adapter.base.config, adapter.base.weights) != (first.base.config, first.base.weights):
            raise AdapterError(
                f"adapters of different base models: {first.base.name!r} and {adapter.base.name!r}"
            )
        if adapter.modules != first.modules:
            raise AdapterError("adapters that target different modules cannot be merged")
        if method == "linear" and adapter.rank != first.rank:
            raise AdapterError(
                f"linear needs equal ranks, got {first.rank} and {adapter.rank}; use concat"
            )


def _merged_mask(method: str, adapters: Sequence[Adapter]) -> Mask | None:
    masks = [adapter.mask for adapter in adapters if adapter.mask is not None]
    if len(masks) < len(adapters):
        return None
    if method == "linear":
        combined = masks[0]
        for mask in masks[1:]:
            combined = union(combined, mask)
        return combined
    return _side_by_side(masks)


def _side_by_side(masks: Sequence[Mask]) -> Mask:
    """Return the mask of B's stacked along the rank."""
    parts, shapes, starts = [], {}, [0] * len(masks)
    for name in masks[0].shapes:
        columns = []
        for index, mask in enumerate(masks):
            rows, rank = mask.shapes[name]
            stop = starts[index] + rows * rank
            columns.append(mask.flat[starts[index] : stop].reshape(rows, rank))
            starts[index] = stop
        joined = np.concatenate(columns, axis=1)
        shapes[name] = (joined.shape[0], joined.shape[1])
        parts.append(joined.reshape(-1))
    return Mask.from_flat(shapes, np.concatenate(parts))
