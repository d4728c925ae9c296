"""The merge methods, as functions of the factors of one module (paper, section 2.2).

With weight w_t and scaling s_t, adapter t changes a module by w_t·ΔW_t = w_t·s_t·B_t @ A_t. A merge
method computes one pair (A', B') with scaling 1 from the adapters' factors. `concat` and `svd`
apart, a method combines two steps, applied either to A and B separately or to the dense ΔW, which
is then truncated to a rank (`*_svd`):

* sparsify: keep all entries, the largest (`magnitude_prune`, `ties`), or a random share, rescaled
  to keep the mean (`dare_*`);
* join: the weighted sum, or the mean of the entries with the majority's sign (`ties`).

The papers: "TIES-Merging: Resolving Interference When Merging Models", Yadav, Tam, Choshen, Raffel
and Bansal, 2023, arXiv 2306.01708 (its steps Trim, Elect Sign and Disjoint Merge); and DARE (Drop
And REscale) in "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a
Free Lunch", Yu, Yu, Yu, Huang and Li, 2023, arXiv 2311.03099.

They are PEFT's methods of these names (`concat` is PEFT's `cat`), with three differences. Adapters
may have different ranks: each is sparsified first, then A and B are padded with zeros. Random drops
depend on the seed only, and entries of equal magnitude are kept by position. A single adapter goes
through the same method, where PEFT falls back to `linear`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import InputError, unknown
from lori_core.merging.truncation import Truncated, truncated_core, truncated_delta
from lori_core.registries.merge_method import MERGE_METHODS as MERGE_METHODS
from lori_core.registries.merge_method import merge_method

if TYPE_CHECKING:
    from torch import Tensor

MAJORITY_SIGNS = ("total", "frequency")


@dataclass(frozen=True)
class Factors:
    """One adapter at one module: w·ΔW = weight · scaling · B @ A.

    Attributes:
        A: [rank, d_in], float32.
        B: [d_out, rank], float32.
        weight: the adapter's weight; may be negative.
        scaling: lora_alpha / rank, or lora_alpha / √rank for rsLoRA; positive.
        index: the adapter's position in the merge; random drops depend on it.
    """

    A: Tensor
    B: Tensor
    weight: float
    scaling: float
    index: int = 0

    def __post_init__(self) -> None:
        """Refuse a factor that is not finite: it would make the whole merge NaN."""
        if not math.isfinite(self.factor):
            what = f"weight {self.weight!r} times scaling {self.scaling!r}"
            raise InputError(f"adapter {self.index}: {what} is not a finite number")

    @property
    def factor(self) -> float:
        """The factor of B @ A: weight · scaling."""
        return self.weight * self.scaling

    @property
    def rank(self) -> int:
        """The rank of this adapter."""
        return self.A.shape[0]

    def stream(self, side: str, module: str) -> str:
        """Return the name of the random stream of `A`, `B`, `delta`, `knots` or `core`."""
        return f"{self.index}\n{side}\n{module}"


@dataclass(frozen=True)
class Options:
    """The options of a merge; a method reads only those that it `uses`.

    Attributes:
        density: the share of an adapter's entries to keep, in (0, 1].
        rank: the rank of the result; None for the adapters' largest rank in the svd methods, and
            for the sum of their ranks in those in shared subspaces.
        majority_sign: elect each sign by the larger sum (`total`) or count (`frequency`).
        seed: the seed of the random drops of the dare methods and della.
        threshold: safemerge's, in (0, 1]; None for its default.
    """

    density: float | None = None
    rank: int | None = None
    majority_sign: str = "total"
    seed: int = 0
    threshold: float | None = None

    @property
    def share_kept(self) -> float:
        """The density of a method that requires one.

        Raises:
            InputError: there is none.
        """
        if self.density is None:
            raise InputError("density: a number in (0, 1] is needed, the share of entries to keep")
        return self.density

    def used_by(self, method: str) -> dict[str, Any]:
        """Return the options that the result of a method depends on."""
        return {name: getattr(self, name) for name in MERGE_METHODS[method].uses}


#: (tensor, options, name of its random stream) -> the tensor with some entries set to zero.
Sparsify = Callable[["Tensor", Options, str], "Tensor"]
#: (tensors of one shape with their weights, options) -> one tensor.
Join = Callable[[Iterable[tuple["Tensor", float]], Options], "Tensor"]


def check_options(method: str, options: Options) -> None:
    """Refuse options that do not fit a merge method.

    Raises:
        InputError: the method is unknown, needs a density and has none, or an option is out of
            range.
    """
    if method not in MERGE_METHODS:
        raise InputError(unknown("merge method", method, MERGE_METHODS))
    if options.density is None and MERGE_METHODS[method].needs_density:
        raise InputError(f"{method} needs a density: the share of entries to keep, as in 0.7")
    if options.density is not None and not 0 < options.density <= 1:
        raise InputError(f"density: {options.density!r} is outside (0, 1]")
    if options.rank is not None and options.rank < 1:
        raise InputError(f"rank: expected a whole number, at least 1, got {options.rank!r}")
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise InputError(f"threshold: {options.threshold!r} is outside (0, 1]")
    if options.majority_sign not in MAJORITY_SIGNS:
        raise InputError(unknown("majority_sign", options.majority_sign, MAJORITY_SIGNS))


def keep_all(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Return the tensor unchanged."""
    return tensor


def keep_largest(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Return the tensor with all but its ⌊density · N⌋ largest magnitudes set to zero.

    It is the step Trim of TIES (arXiv 2306.01708).
    Of equal magnitudes, the first in row-major order are kept.
    """
    import torch

    magnitudes = tensor.abs().reshape(-1)
    count = int(options.share_kept * magnitudes.numel())
    if count == 0:
        return torch.zeros_like(tensor)
    threshold = magnitudes.kthvalue(magnitudes.numel() - count + 1).values
    selected = magnitudes > threshold
    equal = (magnitudes == threshold).nonzero().reshape(-1)
    selected[equal[: count - int(selected.sum())]] = True
    return tensor * selected.view_as(tensor)


def drop_at_random(tensor: Tensor, options: Options, stream: str) -> Tensor:
    """Keep each entry with probability `density`, and divide the kept ones by `density` (DARE).

    These are the steps Drop and Rescale of arXiv 2311.03099, whose drop rate p is 1 − density.
    The drops are reproducible in any language: the first 16 bytes of SHA-256 of the UTF-8 text
    `lori-drop/1\\n{seed}\\n{stream}`, read as two little-endian 64-bit words, are the key of
    Philox4x64-10 with first counter 1. Each 64-bit output gives two words, the low 32 bits first;
    an entry, in row-major order, is kept if its word is below density · 2³². The stream is
    `{index}\\n{side}\\n{module}`: the adapter's position, `A`, `B` or `delta`, and the module's
    name.
    """
    density = options.share_kept
    kept = kept_where(density, tensor.numel(), options.seed, stream)
    return tensor * kept.view_as(tensor) / density


def kept_where(chance: Any, count: int, seed: int, stream: str) -> Tensor:
    """Return which of `count` entries stay, [count], bool, as `drop_at_random` describes.

    Args:
        chance: of each entry to stay: one number, or float64 numbers, [count], in NumPy.
        count: the number of entries.
        seed: the merge's.
        stream: the name of the random stream.
    """
    import numpy as np
    import torch

    text = f"lori-drop/1\n{seed}\n{stream}"
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")
    raw = np.random.Philox(key=key.astype(np.uint64)).random_raw((count + 1) // 2)
    words = raw.astype("<u8", copy=False).view("<u4")[:count]
    return torch.from_numpy(words < chance * 2.0**32)


def weighted_sum(terms: Iterable[tuple[Tensor, float]], options: Options) -> Tensor:
    """Return Σ weight · tensor."""
    terms = iter(terms)
    tensor, weight = next(terms)
    total = tensor * weight
    for tensor, weight in terms:
        total.add_(tensor, alpha=weight)
    return total


def majority_mean(terms: Iterable[tuple[Tensor, float]], options: Options) -> Tensor:
    """Return the mean of weight · tensor over the tensors with the elected sign (TIES).

    They are the steps Elect Sign and Disjoint Merge of arXiv 2306.01708.
    For each entry, the elected sign is that of Σ tensor (`total`) or Σ sign(tensor) (`frequency`),
    without the weights, and + where the sum is zero. Tensors that are zero there or have the other
    sign do not count; if no tensor counts, the entry is zero.
    """
    import torch

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


def _sum_of_ranks(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    return sum(ranks)


def _cut_rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    return min(options.rank or max(ranks), *size)


def _svd_rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    return min(_cut_rank(ranks, size, options), sum(ranks))


#: The options that each step reads.
USES: dict[Sparsify | Join, tuple[str, ...]] = {
    keep_all: (),
    keep_largest: ("density",),
    drop_at_random: ("density", "seed"),
    weighted_sum: (),
    majority_mean: ("majority_sign",),
}


def by_factor(
    name: str,
    label: str,
    about: str,
    sparsify: Sparsify,
    join: Join,
    needs: Sequence[str] | None = None,
) -> None:
    """Register a method that merges A and B separately, each scaled by √|w_t·s_t|, A with the sign.

    ΔW = B' @ A' is then Σ w_t·ΔW_t plus cross terms B_t @ A_u (paper, eq. 8). The method reads the
    options of `needs`, by default those of its two steps in `USES`.
    """
    needs = USES[sparsify] + USES[join] if needs is None else needs

    @merge_method(name, label, about, needs=needs, dense=False)
    def combine(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
        from torch.nn.functional import pad

        rank = max(p.rank for p in parents)
        A, B = [], []
        for p in parents:
            root, missing = math.sqrt(abs(p.factor)), rank - p.rank
            sparse_A = sparsify(p.A, options, p.stream("A", module))
            sparse_B = sparsify(p.B, options, p.stream("B", module))
            A.append((pad(sparse_A, (0, 0, 0, missing)), math.copysign(root, p.factor)))
            B.append((pad(sparse_B, (0, missing)), root))
        return join(A, options), join(B, options)


def _by_delta(name: str, label: str, about: str, sparsify: Sparsify, join: Join) -> None:
    """Register a method that merges the dense ΔW_t and truncates the result to a rank."""
    needs = (*USES[sparsify], *USES[join], "rank")

    @merge_method(name, label, about, needs=needs, rank=_cut_rank)
    def combine(parents: Sequence[Factors], options: Options, module: str) -> Truncated:
        # A generator: the sum then holds two dense matrices at a time, not one for each adapter.
        deltas = (
            (sparsify(p.B @ p.A * p.scaling, options, p.stream("delta", module)), p.weight)
            for p in parents
        )
        delta = join(deltas, options)
        size = (delta.shape[1], delta.shape[0])
        return truncated_delta(delta, _cut_rank([p.rank for p in parents], size, options))


# Tables list the methods in this order: those on factors first, then those that truncate.
@merge_method(
    "concat", "Concat", "exact sum of the ΔWs; ranks add up", rank=_sum_of_ranks, stacks=True,
    dense=False, sums=True,
)  # fmt: skip
def concat(parents: Sequence[Factors], options: Options, module: str) -> tuple[Tensor, Tensor]:
    """Return A' = [A_1; …; A_n], B' = [w_1·s_1·B_1, …]: ΔW = Σ w_t·ΔW_t (paper, eq. 5-6)."""
    import torch

    return torch.cat([p.A for p in parents]), torch.cat([p.B * p.factor for p in parents], dim=1)


by_factor("linear", "Linear", "A and B summed apart: cross terms", keep_all, weighted_sum)
by_factor(
    "magnitude_prune", "Magnitude", "linear, largest entries only", keep_largest, weighted_sum
)
by_factor("ties", "TIES", "largest entries, mean of the majority", keep_largest, majority_mean)
by_factor("dare_linear", "DARE", "linear, entries dropped at random", drop_at_random, weighted_sum)
by_factor(
    "dare_ties", "DARE-TIES", "ties, entries dropped at random", drop_at_random, majority_mean
)


@merge_method("svd", "SVD", "sum of the ΔWs, cut to a rank", needs=("rank",), rank=_svd_rank)
def svd(parents: Sequence[Factors], options: Options, module: str) -> Truncated:
    """Return the best approximation of Σ w_t·ΔW_t with rank `options.rank`; exact from Σ r_t on.

    With the stacked factors B and A of `concat`, B = Q_B·R_B and Aᵀ = Q_A·R_A, the SVD of B @ A
    follows from that of the small R_B·R_Aᵀ, multiplied by Q_B and Q_Aᵀ, so ΔW is never formed.
    A' has orthonormal rows. Computed in float64.
    """
    import torch

    A, B = concat(parents, options, module)
    q_a, r_a = torch.linalg.qr(A.double().T)
    q_b, r_b = torch.linalg.qr(B.double())
    rank = _svd_rank([p.rank for p in parents], (A.shape[1], B.shape[0]), options)
    return truncated_core(q_b, r_b @ r_a.T, q_a, rank)


_by_delta(
    "magnitude_prune_svd", "Magnitude, SVD", "largest of ΔW, cut to a rank", keep_largest,
    weighted_sum,
)  # fmt: skip
_by_delta("ties_svd", "TIES, SVD", "ties on ΔW, cut to a rank", keep_largest, majority_mean)
_by_delta(
    "dare_linear_svd", "DARE, SVD", "dare_linear on ΔW, cut to a rank", drop_at_random, weighted_sum
)
_by_delta(
    "dare_ties_svd", "DARE-TIES, SVD", "dare_ties on ΔW, cut to a rank", drop_at_random,
    majority_mean,
)  # fmt: skip
