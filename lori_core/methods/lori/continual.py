"""Continual training: train a safety adapter inside a task's mask (paper, section 2.3).

Entries of B outside the mask stay bit-identical to those of the safety adapter.
"""

from __future__ import annotations

from collections.abc import Mapping

from lori_core.adapters.adapter import Adapter
from lori_core.adapters.masks.mask import Mask, union
from lori_core.core.errors import AdapterError


def check_start(
    safety: Adapter,
    sizes: Mapping[str, tuple[int, int]],
    rank: int,
    mask: Mask | None,
    task: str,
) -> None:
    """Refuse a safety adapter that continual training cannot start from.

    Args:
        safety: the safety adapter; training starts from its B and keeps its A.
        sizes: (d_in, d_out) of the base's target modules, by name.
        rank: `lori.rank` of this run.
        mask: the entries of B that may change; None for all.
        task: the task to learn, for errors.

    Raises:
        AdapterError: mask, safety adapter and base differ in modules, shapes or rank.
    """
    trained = {name: (module.d_in, module.d_out) for name, module in safety.modules.items()}
    for name in {**sizes, **trained}:
        if trained.get(name) != sizes.get(name):
            raise AdapterError(
                f"continual.{task}: {name} is {trained.get(name, 'missing')} in the safety "
                f"adapter, {sizes.get(name, 'no target')} in this run; train the safety adapter "
                "again"
            )
    if mask is not None:
        mask.check_shapes(safety.shapes, f"continual.{task}")
    if safety.rank != rank:
        raise AdapterError(
            f"continual.{task}: the safety adapter has rank {safety.rank}, lori.rank is {rank}"
        )


def support(mask: Mask | None, start: Adapter | None) -> Mask | None:
    """Return the entries of B that can be nonzero after training; None for all.

    Args:
        mask: the entries that are trained; None for all.
        start: the adapter that training starts from; None if B starts at zero.
    """
    if start is None or mask is None:
        return mask
    return None if start.mask is None else union(mask, start.mask)
