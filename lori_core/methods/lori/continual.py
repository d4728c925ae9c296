"""Continual training: from a safety adapter to a task, in the task's mask (METHOD, section 4).

Entries of B outside the mask come out bit-identical to those of the safety adapter.
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
    """Refuse a safety adapter that a task cannot be learned on top of.

    Args:
        safety: where B begins, and whose A is kept.
        sizes: (d_in, d_out) of the base's target modules, by name.
        rank: of this run.
        mask: the entries of B that may change; None for all.
        task: what is learned, for errors.

    Raises:
        AdapterError: if mask, safety adapter and base have other modules, shapes or ranks.
    """
    theirs = {name: (module.d_in, module.d_out) for name, module in safety.modules.items()}
    for name in {**sizes, **theirs}:
        if theirs.get(name) != sizes.get(name):
            raise AdapterError(
                f"continual.{task}: {name} is {theirs.get(name, 'missing')} in the safety adapter, "
                f"{sizes.get(name, 'no target')} in this run; train the former again"
            )
    if mask is not None:
        mask.check_shapes(safety.shapes, f"continual.{task}")
    if safety.rank != rank:
        raise AdapterError(
            f"continual.{task}: the safety adapter has rank {safety.rank}, lori.rank is {rank}"
        )


def support(mask: Mask | None, start: Adapter | None) -> Mask | None:
    """Return the entries of B that may be other than zero after training; None for all.

    Args:
        mask: the entries that are trained; None for all.
        start: the adapter that training began at; None for zeros.
    """
    if start is None or mask is None:
        return mask
    return None if start.mask is None else union(mask, start.mask)
