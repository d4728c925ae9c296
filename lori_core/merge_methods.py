"""How the adapters of one module become one: every merge method, on tensors alone (METHOD: 3).

With weight w_t and scaling s_t, adapter t changes the module by w_t·ΔW_t = w_t·s_t·B_t @ A_t. A
method turns the adapters' factors into one pair (A', B') of scaling 1. All but `concat` and `svd`
are a product of two choices, made either on A and B apart or on the dense ΔW, which is then cut
down to a rank (`*_svd`):

* which entries of each adapter stay: all, the largest (`magnitude_prune`, `ties`), or a random
  share, scaled up to keep the mean (`dare_*`);
* how they are put together: the weighted sum, or the mean of those on the majority's side (`ties`).

They are PEFT's methods of these names (`concat` is its `cat`), with three differences. Adapters may
have unequal ranks everywhere: an adapter is pruned as it is, then A and B are padded with zeros.
Drops are a function of the seed, and ties in magnitude of the position. One adapter is treated as
many are, where PEFT turns to `linear`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lori_core.errors import InputError, unknown

MAJORITY_SIGNS = ("total", "frequency")


@dataclass(frozen=True)
class Factors:
    """One adapter at one module: w·ΔW = weight · scaling · B @ A.

    Attributes:
        A: [rank, d_in], float32.
        B: [d_out, rank], float32.
        weight: may be negative.
        scaling: lora_alpha / rank, or lora_alpha / √rank for rsLoRA; positive.
        index: its place among the merge's adapters, which random drops depend on.
    """

    A: Tensor
    B: Tensor
    weight: float
    scaling: float
    index: int = 0

    def __post_init__(self) -> None:
        """Refuse a weight that is not a number, which would make all of the merge none."""
        if not math.isfinite(self.factor):
            what = f"weight {self.weight!r} times scaling {self.scaling!r}"
            raise InputError(f"adapter {self.index}: {what} is not a finite number")

    @property
    def factor(self) -> float:
        """What B @ A is multiplied with: weight · scaling."""
        return self.weight * self.scaling

    @property
    def rank(self) -> int:
        """The rank of this adapter."""
        return self.A.shape[0]

    def stream(self, side: str, module: str) -> str:
        """Return the name of the random stream of one side: `A`, `B` or `delta`."""
        return f"{self.index}\n{side}\n{module}"


@dataclass(frozen=True)
class Options:
    """What a merge can be told; a method reads those it `uses` and no others.

    Attributes:
        density: the share of an adapter's entries to keep, in (0, 1].
        rank: the rank of the result of the svd methods; the largest of the adapters' if None.
        majority_sign: whether the larger sum (`total`) or count (`frequency`) decides a sign.
        seed: which entries the dare methods drop.
    """

    density: float | None = None
    rank: int | None = None
    majority_sign: str = "total"
    seed: int = 0

    @property
    def share_kept(self) -> float:
        """The density, where there has to be one."""
        if self.density is None:
            raise InputError("density: a number in (0, 1] is needed, the share of entries to keep")
        return self.density

    def used_by(self, method: str) -> dict[str, Any]:
        """Return the options the result of a method depends on."""
        return {name: getattr(self, name) for name in METHODS[method].uses}


#: The adapters (at least one), the options, the module's name -> A' [r, d_in], B' [d_out, r].
Combine = Callable[[Sequence[Factors], Options, str], tuple[Tensor, Tensor]]
#: The adapters' ranks, (d_in, d_out), the options -> the rank of A' and B'.
Rank = Callable[[Sequence[int], tuple[int, int], Options], int]
#: A tensor, the options, the name of its random stream -> the tensor with entries set to zero.
Sparsify = Callable[[Tensor, Options, str], Tensor]
#: Tensors of one shape with their factors, the options -> one tensor.
Join = Callable[[Iterable[tuple[Tensor, float]], Options], Tensor]


@dataclass(frozen=True)
class Method:
    """A merge method and what is known of its result before it is computed.

    Attributes:
        summary: one line for people.
        combine: merges one module; float32 in, float32 out.
        rank: the rank of its result.
        uses: the names of the options its result depends on.
        stacks: A' is the adapters' A stacked in order, unchanged; the A given may then have no
            columns.
    """

    summary: str
    combine: Combine
    rank: Rank
    uses: tuple[str, ...] = ()
    stacks: bool = False

    @property
    def needs_density(self) -> bool:
        """Whether `density` has to be given."""
        return "density" in self.uses

    @property
    def random(self) -> bool:
        """Whether the result depends on the seed."""
        return "seed" in self.uses

    @property
    def dense(self) -> bool:
        """Whether B' can be other than zero where every adapter's B is zero."""
        return "rank" in self.uses


def check_options(method: str, options: Options) -> None:
    """Refuse options that a method cannot work with.

    Raises:
        InputError: the method is unknown, it needs a density and has none, or an option is out of
            its range.
    """
    if method not in METHODS:
        raise InputError(unknown("merge method", method, METHODS))
    if options.density is None and METHODS[method].needs_density:
        raise InputError(f"{method} needs a density: the share of entries to keep, as in 0.7")
    if options.density is not None and not 0 < options.density <= 1:
        raise InputError(f"density: {options.density!r} is outside (0, 1]")
    if options.rank is not None and options.rank < 1:
        raise InputError(f"rank: expected a whole number, at least 1, got {options.rank!r}")
    if options.majority_sign not in MAJORITY_SIGNS:
        raise InputError(unknown("majority_sign", options.majority_sign, MAJORITY_SIGNS))


def keep_all(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Return the tensor as it is."""
    return tensor


def keep_largest(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Return the tensor with all but its ⌊density · N⌋ largest magnitudes set to zero.

    Of equal magnitudes the first, row by row, stay.
    """
    magnitudes = tensor.abs().reshape(-1)
    count = int(options.share_kept * magnitudes.numel())
    if count == 0:
        return torch.zeros_like(tensor)
    threshold = magnitudes.kthvalue(magnitudes.numel() - count + 1).values
    kept = magnitudes > threshold
    equal = (magnitudes == threshold).nonzero().reshape(-1)
    kept[equal[: count - int(kept.sum())]] = True
    return tensor * kept.view_as(tensor)


def drop_at_random(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Return the tensor with each entry kept with chance `density`, then divided by it (DARE).

    Which entries stay is reproducible in any language: the first 16 bytes of SHA-256 over the
    UTF-8 text `lori-drop/1\\n{seed}\\n{stream}`, read as two little-endian 64-bit words, are the
    key of Philox4x64-10, whose first counter is 1. Each 64-bit output gives two words, its low
    32 bits first; an entry, row by row, stays where its word is below density · 2³². The stream is
    `{index}\\n{side}\\n{module}`: the adapter's place, `A`, `B` or `delta`, the module's name.
    """
    density = options.share_kept
    text = f"lori-drop/1\n{options.seed}\n{stream}"
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")
    count = tensor.numel()
    raw = np.random.Philox(key=key.astype(np.uint64)).random_raw((count + 1) // 2)
    words = raw.astype("<u8", copy=False).view("<u4")[:count]
    kept = torch.from_numpy(words < density * 2.0**32)
    return tensor * kept.view_as(tensor) / density


def weighted_sum(terms: Iterable[tuple[Tensor, float]], options: Options) -> Tensor:
    """Return Σ weight · tensor."""
    terms = iter(terms)
    tensor, weight = next(terms)
    total = tensor * weight
    for tensor, weight in terms:
        total.add_(tensor, alpha=weight)
    return total


def majority_mean(terms: Iterable[tuple[Tensor, float]], options: Options) -> Tensor:
    """Return the mean of weight · tensor over the tensors on the majority's side (TIES).

    Entry by entry: the elected sign is that of Σ tensor (`total`) or Σ sign(tensor)
    (`frequency`), and + where that is zero; neither sees the weights. Tensors that are zero or of
    the other sign do not count; where none is left the result is zero.
    """
    pairs = list(terms)
    balance = torch.zeros_like(pairs[0][0])
    for tensor, _ in pairs:
        balance += tensor if options.majority_sign == "total" else tensor.sign()
    elected = torch.where(balance >= 0, 1.0, -1.0)
    total, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for tensor, weight in pairs:
        agrees = tensor.sign() == elected
        total.add_(tensor * agrees, alpha=weight)
        count += agrees
    return total / count.clamp_(min=1)


def concat(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
    """Return A' = [A_1; …; A_n], B' = [w_1·s_1·B_1, …]: ΔW = Σ w_t·ΔW_t (paper, eq. 5-6)."""
    return torch.cat([p.A for p in parents]), torch.cat([p.B * p.factor for p in parents], dim=1)


def svd(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
    """Return the best approximation of Σ w_t·ΔW_t of the rank asked for; exact from Σ r_t on.

    With the stacked factors B @ A of `concat`, B = Q_B·R_B and Aᵀ = Q_A·R_A, the singular value
    decomposition of B @ A is that of R_B·R_Aᵀ between Q_B and Q_Aᵀ, so ΔW is never formed. A' has
    orthonormal rows. Computed in float64.
    """
    A, B = concat(parents, options, module)
    q_a, r_a = torch.linalg.qr(A.double().T)
    q_b, r_b = torch.linalg.qr(B.double())
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    rank = _svd_rank([p.rank for p in parents], (A.shape[1], B.shape[0]), options)
    return (vh[:rank] @ q_a.T).float(), (q_b @ (u[:, :rank] * s[:rank])).float()


def _truncated(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A', B' of a rank whose product is nearest to ΔW [d_out, d_in] (Eckart-Young).

    One of the two holds ΔW's leading singular vectors, the strongest first, the other ΔW projected
    on them.
    """
    from scipy.linalg import eigh

    # The leading eigenvectors of the smaller Gram matrix: a fraction of a whole decomposition's
    # time, and in float64 closer than that one is in float32.
    wide = delta.shape[0] < delta.shape[1]
    tall = (delta.T if wide else delta).double()
    gram = (tall.T @ tall).numpy()
    _, vectors = eigh(gram, subset_by_index=(len(gram) - rank, len(gram) - 1), overwrite_a=True)
    basis = torch.from_numpy(vectors).flip(1)
    projected = tall @ basis
    A, B = (projected.T, basis) if wide else (basis.T, projected)
    return A.float().contiguous(), B.float().contiguous()


def _sum_of_ranks(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    return sum(ranks)


def _cut_rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    return min(options.rank or max(ranks), *size)


def _svd_rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    return min(_cut_rank(ranks, size, options), sum(ranks))


#: The options that each choice reads.
_USES: dict[Sparsify | Join, tuple[str, ...]] = {
    keep_all: (),
    keep_largest: ("density",),
    drop_at_random: ("density", "seed"),
    weighted_sum: (),
    majority_mean: ("majority_sign",),
}


def _by_factor(summary: str, sparsify: Sparsify, join: Join) -> Method:
    """Return the method that treats A and B apart, each times √|w_t·s_t|, A with the sign.

    ΔW = B' @ A' is then the w_t·ΔW_t and cross terms B_t @ A_u (paper, eq. 8).
    """

    def combine(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
        rank = max(p.rank for p in parents)
        A, B = [], []
        for p in parents:
            root, missing = math.sqrt(abs(p.factor)), rank - p.rank
            kept_A = sparsify(p.A, options, p.stream("A", module))
            kept_B = sparsify(p.B, options, p.stream("B", module))
            A.append((pad(kept_A, (0, 0, 0, missing)), math.copysign(root, p.factor)))
            B.append((pad(kept_B, (0, missing)), root))
        return join(A, options), join(B, options)

    def rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
        return max(ranks)

    return Method(summary, combine, rank, _USES[sparsify] + _USES[join])


def _by_delta(summary: str, sparsify: Sparsify, join: Join) -> Method:
    """Return the method that treats each ΔW_t, dense, and cuts the result down to a rank."""

    def combine(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
        # Made one at a time: a sum then holds two dense matrices, not one for each adapter.
        deltas = (
            (sparsify(p.B @ p.A * p.scaling, options, p.stream("delta", module)), p.weight)
            for p in parents
        )
        delta = join(deltas, options)
        size = (delta.shape[1], delta.shape[0])
        return _truncated(delta, _cut_rank([p.rank for p in parents], size, options))

    return Method(summary, combine, _cut_rank, (*_USES[sparsify], *_USES[join], "rank"))


#: Every merge method; adding one is a function above and a line here.
METHODS: dict[str, Method] = {
    "concat": Method("exact sum of the ΔWs; ranks add up", concat, _sum_of_ranks, stacks=True),
    "linear": _by_factor("A and B summed apart: cross terms", keep_all, weighted_sum),
    "magnitude_prune": _by_factor("linear, largest entries only", keep_largest, weighted_sum),
    "ties": _by_factor("largest entries, mean of the majority", keep_largest, majority_mean),
    "dare_linear": _by_factor("linear, entries dropped at random", drop_at_random, weighted_sum),
    "dare_ties": _by_factor("ties, entries dropped at random", drop_at_random, majority_mean),
    "svd": Method("sum of the ΔWs, cut to a rank", svd, _svd_rank, ("rank",)),
    "magnitude_prune_svd": _by_delta("largest of ΔW, cut to a rank", keep_largest, weighted_sum),
    "ties_svd": _by_delta("ties on ΔW, cut to a rank", keep_largest, majority_mean),
    "dare_linear_svd": _by_delta("dare_linear on ΔW, cut to a rank", drop_at_random, weighted_sum),
    "dare_ties_svd": _by_delta("dare_ties on ΔW, cut to a rank", drop_at_random, majority_mean),
}
