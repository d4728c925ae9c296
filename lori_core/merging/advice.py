"""Recommend a merge method from adapters' files alone, before anything is merged.

The update ΔW_u of another adapter disturbs a task t by the part that lies in the directions which
ΔW_t reads and writes: ‖P_B·ΔW_u·P_A‖² / ‖ΔW_u‖², where P_A projects on the row space of A_t and P_B
on the column space of B_t. This overlap is 0 for updates without a common direction and 1 for
copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean

from torch import Tensor, linalg

from lori_core.adapters.adapter import Adapter
from lori_core.merging.interference import ModulePair

#: Up to this mean overlap, an exact sum leaves nearly all of each update undisturbed.
APART = 0.05
#: From this mean cosine on, two updates point the same way.
ALIKE = 0.3
#: How far the recommendation can be trusted.
TRUST = (
    "From the files alone: the overlap of updates is not the rise of a task's loss. The weights "
    "matter as much as the method: forecast the excess loss by gradients (lori "
    "interference --examples), measure it (lori stage excess), or search the weights (lori merge "
    "--search)."
)


@dataclass(frozen=True)
class Advice:
    """A recommendation: the method, the mean overlap behind it, why, and how far to trust it."""

    method: str
    overlap: float
    reason: str
    trust: str = TRUST


def overlap(one: Adapter, other: Adapter, module: str) -> float:
    """Return the share of ‖ΔW‖² of `other` in the directions of ΔW of `one`, in [0, 1].

    Forms no matrix of d_out x d_in; computed in float64. 0 if either update is 0.
    """
    A, B = other.A(module).double(), other.B(module).double()
    whole = float(((B.T @ B) * (A @ A.T)).sum())
    left, right = _basis(one.B(module).double()), _basis(one.A(module).double().T)
    if whole <= 0 or not left.shape[1] or not right.shape[1]:
        return 0.0
    core = (left.T @ B) @ (A @ right)
    return min(1.0, float(core.square().sum()) / whole)


def _basis(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the column space, [d, k], float64."""
    u, s, _ = linalg.svd(columns, full_matrices=False)
    basis: Tensor = u[:, s > 1e-6 * s[0]]
    return basis


def advise(
    adapters: Mapping[str, Adapter], measured: Mapping[str, Mapping[str, ModulePair]]
) -> Advice:
    """Recommend a merge method for adapters.

    Args:
        adapters: the adapters by name, at least two.
        measured: the return value of `interference.measure` for them.
    """
    common = _common_parent(adapters)
    shares = [
        overlap(adapters[one], adapters[other], module)
        for one, other in permutations(adapters, 2)
        for module in adapters[one].modules
        if module in adapters[other].modules
    ]
    mean = fmean(shares)
    if common is not None:
        return Advice(
            "on_safety", mean,
            f"all adapters share one A and were trained from the adapter {common[:16]}, so their "
            "changes to it can be added up on it (--safety ADAPTER)",
        )  # fmt: skip
    if mean <= APART:
        return Advice(
            "concat", mean,
            f"{mean:.1%} of an update lies in another's directions, so the exact sum leaves nearly "
            "all of each update as it is",
        )  # fmt: skip
    cosine = fmean(pair.cosine for modules in measured.values() for pair in modules.values())
    if cosine >= ALIKE:
        return Advice(
            "linear", mean,
            f"{mean:.1%} of an update lies in another's directions, and they point the same way "
            f"(mean cosine {cosine:.2f}): average them, with weights that sum to 1",
        )  # fmt: skip
    return Advice(
        "ties", mean,
        f"{mean:.1%} of an update lies in another's directions, and they do not point the same way "
        f"(mean cosine {cosine:.2f}): keep each adapter's largest entries and elect signs",
    )  # fmt: skip


def _common_parent(adapters: Mapping[str, Adapter]) -> str | None:
    """Return the content key of the adapter that all were trained from, if they share its A."""
    parents = [set(map(str, adapter.info.get("parents", ()))) for adapter in adapters.values()]
    shared = set.intersection(*parents)
    first, *others = (adapter.blocks for adapter in adapters.values())
    same = bool(first) and all(blocks == first for blocks in others)
    return min(shared) if shared and same else None
