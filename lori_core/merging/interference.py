"""How much adapters get in each other's way, from their files alone (Property 1, eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from lori_core.adapters.adapter import Adapter, check_one_base
from lori_core.core.errors import AdapterError

#: The probability with which Property 1's bound may fail, for one module.
DELTA = 0.05
#: Where ‖ΔW‖² is a smaller share of what its terms come to, they cancel: float64 knows no more.
_NOTHING = 1e-12


@dataclass(frozen=True)
class ModulePair:
    """Two adapters at one module.

    Attributes:
        inner: ⟨ΔW_s, ΔW_t⟩_F = scaling_s·scaling_t·Σ (B_sᵀB_t) ⊙ (A_s A_tᵀ).
        cosine: the inner product over both norms, in [-1, 1]; 0 where one ΔW is 0.
        bound: what Property 1 allows |inner| to be, with probability 1 - δ; None where one of the
            A is not drawn from a key, so that nothing is promised.
        entries: how many entries B has here; 0 where the masks cannot be compared.
        kept: how many of them the first and the second mask keep.
        both: how many both keep.
        collisions: how many of those have values of opposite sign.
    """

    inner: float
    cosine: float
    bound: float | None
    entries: int = 0
    kept: tuple[int, int] = (0, 0)
    both: int = 0
    collisions: int = 0

    @property
    def expected(self) -> float | None:
        """How many entries two independent masks would both keep; None without such masks."""
        return self.kept[0] * self.kept[1] / self.entries if self.entries else None


@dataclass(frozen=True)
class _Side:
    """One adapter at one module: A, B and their Gram matrices, float64."""

    A: Tensor
    B: Tensor
    scaling: float
    norm: float
    keyed: bool
    kept: np.ndarray | None

    @classmethod
    def of(cls, adapter: Adapter, module: str) -> _Side:
        A, B = adapter.A(module).double(), adapter.B(module).double()
        terms = (B.T @ B) * (A @ A.T)
        square = float(terms.sum())
        if square <= _NOTHING * float(terms.abs().sum()):
            square = 0.0
        kept = None if adapter.mask is None else adapter.mask.of(module)
        scaling = adapter.scaling(module)
        norm = abs(scaling) * math.sqrt(square)
        return cls(A, B, scaling, norm, bool(adapter.blocks), kept)


def module_pair(first: Adapter, second: Adapter, module: str) -> ModulePair:
    """Compare two adapters at one module with r x r arithmetic in float64, never forming ΔW."""
    return _pair(_Side.of(first, module), _Side.of(second, module))


def _pair(s: _Side, t: _Side) -> ModulePair:
    scaling = s.scaling * t.scaling
    norms = s.norm * t.norm
    inner = scaling * float(((s.B.T @ t.B) * (s.A @ t.A.T)).sum()) if norms else 0.0
    bound = None
    if s.keyed and t.keyed:
        pairs = s.A.shape[0] * t.A.shape[0]
        gram = math.sqrt(pairs) * math.sqrt(2 * math.log(2 * pairs / DELTA) / s.A.shape[1])
        bound = abs(scaling) * float(s.B.norm()) * float(t.B.norm()) * gram
    cosine = max(-1.0, min(1.0, inner / norms)) if norms else 0.0
    facts = (inner, cosine, bound)
    if s.kept is None or t.kept is None or s.kept.size != t.kept.size:
        return ModulePair(*facts)
    both = s.kept & t.kept
    opposite = torch.sign(s.B) * torch.sign(t.B) < 0
    return ModulePair(
        *facts,
        entries=both.size,
        kept=(int(s.kept.sum()), int(t.kept.sum())),
        both=int(both.sum()),
        collisions=int(opposite.sum()),
    )


def shared_projection(first: Adapter, second: Adapter) -> str | None:
    """Return what two adapters' A have in common, if anything: then Property 1 is void."""
    keys = {(block.seed, block.key) for block in first.blocks}
    for block in second.blocks:
        if (block.seed, block.key) in keys:
            return f"the projection key {block.key!r}"
    for module in first.modules:
        if module in second.modules and _same_rows(first.A(module), second.A(module)):
            return f"rows of A (in {module})"
        if module in second.modules:
            break  # one module tells: A is drawn, or trained, everywhere alike
    return None


def _same_rows(first: Tensor, second: Tensor) -> bool:
    rows = {row.tobytes() for row in first.numpy() if row.any()}
    return any(row.tobytes() in rows for row in second.numpy())


def measure(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, ModulePair]]:
    """Compare each pair of adapters at each module that both adapt.

    Returns:
        The measurements by `first+second`, then by module.

    Raises:
        AdapterError: for fewer than two adapters, or two of other bases or without a common module.
    """
    if len(adapters) < 2:
        raise AdapterError(f"{len(adapters)} adapter given; at least two can be compared")
    check_one_base(adapters)
    found: dict[str, dict[str, ModulePair]] = {f"{a}+{b}": {} for a, b in combinations(adapters, 2)}
    every = dict.fromkeys(name for adapter in adapters.values() for name in adapter.modules)
    for module in every:
        sides = {n: _Side.of(a, module) for n, a in adapters.items() if module in a.modules}
        for a, b in combinations(sides, 2):
            found[f"{a}+{b}"][module] = _pair(sides[a], sides[b])
    for pair, modules in found.items():
        if not modules:
            raise AdapterError(f"{pair}: no module is adapted by both; there is nothing to compare")
    return found


def summarise(modules: Sequence[ModulePair]) -> dict[str, float]:
    """Return what a pair's modules come to.

    Mean and largest |cosine|; the share of modules within Property 1's bound, where it applies;
    and, where the masks can be compared, the share of all entries that both keep beside its
    expectation for independent masks (1 - s_s)(1 - s_t), and the share of the common entries whose
    signs differ.
    """
    cosines = np.abs([module.cosine for module in modules])
    row = {"mean_abs_cosine": float(cosines.mean()), "max_abs_cosine": float(cosines.max())}
    bounds = [abs(m.inner) <= m.bound for m in modules if m.bound is not None]
    if bounds:
        row["within_bound"] = float(np.mean(bounds))
    entries = sum(module.entries for module in modules)
    if not all(module.entries for module in modules):
        return row
    both = sum(module.both for module in modules)
    kept = [sum(module.kept[side] for module in modules) for side in (0, 1)]
    collisions = sum(module.collisions for module in modules)
    return row | {
        "mask_overlap": both / entries,
        "expected_overlap": kept[0] / entries * (kept[1] / entries),
        "sign_collisions": collisions / both if both else 0.0,
    }


def compare(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, float]]:
    """Compare each pair of adapters over all modules: `summarise` by `first+second`.

    Raises:
        AdapterError: as `measure`, or for two adapters that share a projection.
    """
    for a, b in combinations(adapters, 2):
        shared = shared_projection(adapters[a], adapters[b])
        if shared is not None:
            raise AdapterError(f"{a} and {b} share {shared}: they are not independent")
    return {pair: summarise(list(m.values())) for pair, m in measure(adapters).items()}
