"""The merge method `on_safety`: sum what continual adapters changed in the safety adapter.

Continual training (paper, section 2.3) starts from the safety adapter's B, keeps its A, and changes
B inside the task's mask only. So the adapters share A, and the sum of their changes is one sparse
adapter of the same rank:

    ΔW = (s_0·B_0 + Σ w_t·(s_t·B_t − s_0·B_0)) @ A

with B_0 and s_0 of the safety adapter. Entries of B that no task trained keep the safety adapter's
value exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lori_core.core.errors import AdapterError
from lori_core.registries.merge_method import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from lori_core.adapters.adapter import Adapter
    from lori_core.merging.merge_methods import Factors, Options


#: The most entries of the safety adapter's B that rounding may set to zero, as a share.
ROUNDED = 0.01


@merge_method(
    "on_safety", "On safety", "the safety adapter plus what each continual adapter changed in it",
    dense=False, starts=True, sums=True,
)  # fmt: skip
def on_safety(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
    """Return A' = A, B' = s_0·B_0 + Σ w_t·(s_t·B_t − s_0·B_0); the start's factors come first."""
    start, *others = parents
    B0 = start.B * start.scaling
    B = B0.clone()
    for other in others:
        B.add_(other.B * other.scaling - B0, alpha=other.weight)
    return start.A, B


def check_starts(start: Adapter, adapters: Mapping[str, Adapter]) -> None:
    """Refuse adapters that were not trained from the safety adapter.

    Args:
        start: the safety adapter.
        adapters: the continual adapters, by their names in messages.

    Raises:
        AdapterError: an adapter has another A, rank or other modules than the safety adapter, does
            not record that it was trained from it, or only got its mask from it.
    """
    key = _content_key(start)
    if key is None:
        raise AdapterError(
            "on_safety: the safety adapter records no content key, so nothing proves that the "
            "others were trained from it; use the adapter that lori trained"
        )
    for name, adapter in adapters.items():
        _check_modules(start, adapter, name)
        parents = adapter.info.get("parents", ())
        if key not in parents:
            raise AdapterError(
                f"on_safety: {name} was not trained from the given safety adapter (content key "
                f"{key[:16]}); it records the parents {_short(parents)}: name the safety adapter "
                "that it was trained from, or merge it by concat"
            )
        _check_support(start, adapter, name)


def _check_modules(start: Adapter, adapter: Adapter, name: str) -> None:
    for module in dict.fromkeys([*start.modules, *adapter.modules]):
        ours, theirs = start.modules.get(module), adapter.modules.get(module)
        if ours is None or theirs is None:
            without = "the safety adapter" if ours is None else name
            raise AdapterError(
                f"on_safety: {without} has no {module}, which the other adapter has; both need the "
                "same modules"
            )
        if (ours.rank, ours.d_in, ours.d_out) != (theirs.rank, theirs.d_in, theirs.d_out):
            raise AdapterError(
                f"on_safety: {module} has rank {theirs.rank}, {theirs.d_in} to {theirs.d_out}, in "
                f"{name} and rank {ours.rank}, {ours.d_in} to {ours.d_out}, in the safety adapter; "
                "they must be equal"
            )
    if start.blocks and start.blocks == adapter.blocks:
        return
    for module in start.modules:
        if not bool((start.A(module) == adapter.A(module)).all()):
            raise AdapterError(
                f"on_safety: A of {module} in {name} is not that of the safety adapter; only "
                "adapters that share its A can be added to it (merge others by concat)"
            )


def _check_support(start: Adapter, adapter: Adapter, name: str) -> None:
    """Refuse an adapter whose parent is the start, but whose training began at B = 0.

    An adapter also records the one that its mask was extracted from as its parent. Training that
    goes on from an adapter keeps the entries of its B. Of an adapter in PEFT's format, the mask is
    that of its entries other than zero, so a few may be missing by rounding.
    """
    if adapter.mask is None:
        return
    kept = lost = 0
    for module in start.modules:
        nonzero = start.B(module).reshape(-1).numpy() != 0
        kept += int(nonzero.sum())
        lost += int((nonzero & ~adapter.mask.of(module)).sum())
    if lost > ROUNDED * kept:
        raise AdapterError(
            f"on_safety: the mask of {name} leaves out entries of the given safety adapter, which "
            "was only calibrated for that mask; name the adapter that training went on from, or "
            "merge by concat"
        )


def _content_key(adapter: Adapter) -> str | None:
    key = adapter.info.get("content_key") or adapter.info.get("recipe", {}).get("content_key")
    return None if key is None else str(key)


def _short(parents: Sequence[object]) -> str:
    return ", ".join(str(parent)[:16] for parent in parents) or "none"
