"""How much two adapters get in each other's way, from their files alone (Property 1, eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lori_core.adapter import Adapter
from lori_core.errors import AdapterError
from lori_core.mask import overlap

#: The probability with which Property 1's bound may fail, for one module.
DELTA = 0.05


@dataclass(frozen=True)
class ModulePair:
    """Two adapters at one module.

    Attributes:
        inner: ⟨ΔW_s, ΔW_t⟩_F = scaling_s·scaling_t·Σ (B_sᵀB_t) ⊙ (A_s A_tᵀ).
        cosine: the inner product over both norms; 0 where one ΔW is 0.
        bound: what Property 1 allows |inner| to be, with probability 1 - δ.
    """

    inner: float
    cosine: float
    bound: float


def module_pair(first: Adapter, second: Adapter, module: str) -> ModulePair:
    """Compare two adapters at one module with r x r arithmetic in float64, never forming ΔW."""
    A_s, B_s = first.A[module].double(), first.B[module].double()
    A_t, B_t = second.A[module].double(), second.B[module].double()
    scaling = first.scaling * second.scaling
    inner = scaling * float(((B_s.T @ B_t) * (A_s @ A_t.T)).sum())
    norm_s = first.scaling * math.sqrt(max(0.0, float(((B_s.T @ B_s) * (A_s @ A_s.T)).sum())))
    norm_t = second.scaling * math.sqrt(max(0.0, float(((B_t.T @ B_t) * (A_t @ A_t.T)).sum())))
    d_in = first.modules[module][0]
    pairs = A_s.shape[0] * A_t.shape[0]
    gram = math.sqrt(pairs) * math.sqrt(2 * math.log(2 * pairs / DELTA) / d_in)
    bound = scaling * float(B_s.norm()) * float(B_t.norm()) * gram
    return ModulePair(inner, inner / (norm_s * norm_t) if norm_s * norm_t else 0.0, bound)


def shared_key(first: Adapter, second: Adapter) -> str | None:
    """Return a key that both A's are drawn from, if any: then Property 1 is void."""
    keys = {(block.seed, block.key) for block in first.blocks}
    shared = [block.key for block in second.blocks if (block.seed, block.key) in keys]
    return shared[0] if shared else None


def compare(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, float]]:
    """Compare each pair of adapters.

    Returns:
        By `first+second`: mean and largest |cosine| over modules, the share of modules within
        Property 1's bound, mask overlap beside its expectation (1 - s_s)(1 - s_t), and the share
        of common entries whose signs differ.

    Raises:
        AdapterError: for adapters of other modules, or two that share a projection.
    """
    return {
        f"{a}+{b}": _pair(adapters[a], adapters[b], f"{a} and {b}")
        for a, b in combinations(adapters, 2)
    }


def _pair(first: Adapter, second: Adapter, names: str) -> dict[str, float]:
    if first.modules != second.modules:
        raise AdapterError(f"{names}: adapters of different modules cannot be compared")
    key = shared_key(first, second)
    if key is not None:
        raise AdapterError(f"{names} share the projection key {key!r}: they are not independent")
    modules = [module_pair(first, second, name) for name in first.modules]
    cosines = np.abs([module.cosine for module in modules])
    row = {
        "mean_abs_cosine": float(cosines.mean()),
        "max_abs_cosine": float(cosines.max()),
        "within_bound": float(np.mean([abs(m.inner) <= m.bound for m in modules])),
    }
    if first.mask is None or second.mask is None or first.rank != second.rank:
        return row
    both = first.mask.flat & second.mask.flat
    signs_s = _signs(first)[both]
    signs_t = _signs(second)[both]
    return row | {
        "mask_overlap": overlap(first.mask, second.mask),
        "expected_overlap": (1 - first.mask.sparsity) * (1 - second.mask.sparsity),
        "sign_collisions": float((signs_s * signs_t < 0).mean()) if both.any() else 0.0,
    }


def _signs(adapter: Adapter) -> np.ndarray:
    return np.concatenate([np.sign(b.numpy()).reshape(-1) for b in adapter.B.values()])
