"""SafeMERGE: merge the safety adapter only into the modules whose update leaves its subspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lori_core.core.errors import InputError
from lori_core.merging.merge_methods import Factors, Options
from lori_core.registries.merge_method import merge_method

if TYPE_CHECKING:
    from torch import Tensor

#: τ of the authors' code.
THRESHOLD = 0.35


def agreement(task: Factors, safety: Factors) -> float:
    """Return `cos(ΔW, C ΔW)` with `C = V Vᵀ` of the safety adapter's update V, in [0, 1].

    It is computed in float64 from products of the factors of r x r entries. It does not depend on
    scalings and weights, and is 0 if one of the two updates is zero.

    Args:
        task: gives ΔW = B @ A.
        safety: gives V = B @ A.
    """
    import torch

    A, B, A_s, B_s = (m.double() for m in (task.A, task.B, safety.A, safety.B))
    rows, columns, own = A @ A.T, B_s.T @ B_s, B.T @ B
    inner = (A_s @ A_s.T) @ (B_s.T @ B)  # Vᵀ ΔW, but for A_s on the left and A on the right
    dot = torch.trace((B_s.T @ B).T @ inner @ rows)
    norms = torch.trace(inner.T @ columns @ inner @ rows) * torch.trace(own @ rows)
    return float(dot / norms.sqrt()) if norms > 0 else 0.0


def _sum_of_ranks(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    return sum(ranks)


@merge_method(
    "safemerge",
    "SafeMERGE",
    "adds the safety adapter, the last one, to modules that leave its subspace",
    needs=("threshold",),
    rank=_sum_of_ranks,
)
def safemerge(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
    """Return ΔW of the task, or `w_1·ΔW + w_2·V` where they agree too little (arXiv:2503.17239).

    The task's adapter is the first, the safety adapter, with update V, the second. A module whose
    `agreement` is at least `options.threshold` keeps the task's update with weight 1. In the
    authors' code, V is the difference between an aligned model and its base, and A and B are added
    apart; here V is the safety adapter's update, and the sum is exact, as in `concat`.

    Raises:
        InputError: there are more than two adapters.
    """
    import torch

    if any(p.index > 1 for p in parents):
        raise InputError("safemerge: merges two adapters, a task's and then the safety adapter")
    factors = [p.factor for p in parents]
    if len(parents) == 2:
        task, safety = parents
        threshold = THRESHOLD if options.threshold is None else options.threshold
        if agreement(task, safety) >= threshold:
            factors = [task.scaling, 0.0]
    A = torch.cat([p.A for p in parents]).contiguous()
    scaled = [p.B * factor for p, factor in zip(parents, factors, strict=True)]
    return A, torch.cat(scaled, dim=1).contiguous()
