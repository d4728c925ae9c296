"""Measure the interference between adapters from their files alone (Property 1, eq. 4)."""

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

#: The δ of Property 1: its bound fails with at most this probability, for one module.
DELTA = 0.05
#: ‖ΔW‖² counts as 0 below this share of the sum of its terms' magnitudes: then its value is only
#: the rounding error of float64.
_CANCELLED = 1e-12


@dataclass(frozen=True)
class ModulePair:
    """The interference of two adapters at one module.

    Attributes:
        inner: ⟨ΔW_s, ΔW_t⟩_F = scaling_s·scaling_t·Σ (B_sᵀB_t) ⊙ (A_s A_tᵀ).
        cosine: the inner product divided by both norms, in [-1, 1]; 0 if one ΔW is 0.
        bound: Property 1's bound on |inner|, which holds with probability 1 - δ; None if one A is
            not drawn from a key, so that Property 1 does not apply.
        entries: the number of entries of B; 0 if the masks cannot be compared.
        inside: the number of entries inside the first and inside the second mask.
        both: the number of entries inside both masks.
        collisions: the number of entries inside both masks whose values have opposite signs.
    """

    inner: float
    cosine: float
    bound: float | None
    entries: int = 0
    inside: tuple[int, int] = (0, 0)
    both: int = 0
    collisions: int = 0

    @property
    def expected(self) -> float | None:
        """The expected `both` of two independent masks; None if masks cannot be compared."""
        return self.inside[0] * self.inside[1] / self.entries if self.entries else None


@dataclass(frozen=True)
class _Side:
    """One adapter at one module.

    Attributes:
        A: [rank, d_in], float64.
        B: [d_out, rank], float64.
        scaling: the scaling of B @ A.
        norm: ‖ΔW‖_F.
        keyed: whether A is drawn from a key.
        mask: the mask, flat booleans [d_out · rank]; None without a mask.
    """

    A: Tensor
    B: Tensor
    scaling: float
    norm: float
    keyed: bool
    mask: np.ndarray | None

    @classmethod
    def of(cls, adapter: Adapter, module: str) -> _Side:
        """Read an adapter's matrices at a module and compute its norm."""
        A, B = adapter.A(module).double(), adapter.B(module).double()
        terms = (B.T @ B) * (A @ A.T)
        square = float(terms.sum())
        if square <= _CANCELLED * float(terms.abs().sum()):
            square = 0.0
        mask = None if adapter.mask is None else adapter.mask.of(module)
        scaling = adapter.scaling(module)
        norm = abs(scaling) * math.sqrt(square)
        return cls(A, B, scaling, norm, bool(adapter.blocks), mask)


def module_pair(first: Adapter, second: Adapter, module: str) -> ModulePair:
    """Measure two adapters at one module in float64, with rank x rank products; forms no ΔW."""
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
    if s.mask is None or t.mask is None or s.mask.size != t.mask.size:
        return ModulePair(*facts)
    both = s.mask & t.mask
    opposite = torch.sign(s.B) * torch.sign(t.B) < 0
    return ModulePair(
        *facts,
        entries=both.size,
        inside=(int(s.mask.sum()), int(t.mask.sum())),
        both=int(both.sum()),
        collisions=int(opposite.sum()),
    )


def shared_projection(first: Adapter, second: Adapter) -> str | None:
    """Return what the A of two adapters have in common; None if nothing.

    Property 1 holds only for independent A.
    """
    keys = {(block.seed, block.key) for block in first.blocks}
    for block in second.blocks:
        if (block.seed, block.key) in keys:
            return f"the projection key {block.key!r}"
    for module in first.modules:
        if module in second.modules and _same_rows(first.A(module), second.A(module)):
            return f"rows of A (in {module})"
        if module in second.modules:
            break  # one module suffices: A is drawn, or trained, the same way in all modules
    return None


def _same_rows(first: Tensor, second: Tensor) -> bool:
    """Return whether two A have a nonzero row in common."""
    rows = {row.tobytes() for row in first.numpy() if row.any()}
    return any(row.tobytes() in rows for row in second.numpy())


def measure(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, ModulePair]]:
    """Measure each pair of adapters at each module that both adapt.

    Args:
        adapters: the adapters by name.

    Returns:
        The measurements by `first+second`, then by module.

    Raises:
        AdapterError: there are fewer than two adapters, or two have different bases or no module in
            common.
    """
    if len(adapters) < 2:
        raise AdapterError(f"{len(adapters)} adapter given; at least two can be compared")
    check_one_base(adapters)
    pairs: dict[str, dict[str, ModulePair]] = {f"{a}+{b}": {} for a, b in combinations(adapters, 2)}
    every = dict.fromkeys(name for adapter in adapters.values() for name in adapter.modules)
    for module in every:
        sides = {n: _Side.of(a, module) for n, a in adapters.items() if module in a.modules}
        for a, b in combinations(sides, 2):
            pairs[f"{a}+{b}"][module] = _pair(sides[a], sides[b])
    for pair, modules in pairs.items():
        if not modules:
            raise AdapterError(f"{pair}: no module is adapted by both; there is nothing to compare")
    return pairs


def summarise(modules: Sequence[ModulePair]) -> dict[str, float]:
    """Summarise the measurements of one pair of adapters over its modules.

    Returns:
        `mean_abs_cosine` and `max_abs_cosine`; where Property 1 applies, `within_bound`, the share
        of modules within its bound; and where the masks can be compared, `mask_overlap`, the share
        of all entries inside both masks, `expected_overlap`, its expectation (1 - s_s)(1 - s_t) for
        independent masks, and `sign_collisions`, the share of the common entries whose signs
        differ.
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
    inside = [sum(module.inside[side] for module in modules) for side in (0, 1)]
    collisions = sum(module.collisions for module in modules)
    return row | {
        "mask_overlap": both / entries,
        "expected_overlap": inside[0] / entries * (inside[1] / entries),
        "sign_collisions": collisions / both if both else 0.0,
    }


def compare(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, float]]:
    """Return the `summarise` of each pair of adapters, by `first+second`.

    Raises:
        AdapterError: as `measure`, or two adapters share a projection.
    """
    for a, b in combinations(adapters, 2):
        shared = shared_projection(adapters[a], adapters[b])
        if shared is not None:
            raise AdapterError(f"{a} and {b} share {shared}: they are not independent")
    return {pair: summarise(list(m.values())) for pair, m in measure(adapters).items()}
