"""The registry of merge methods, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lori_core.registries.registry import Named, Registry, current_extension

if TYPE_CHECKING:
    from torch import Tensor

    from lori_core.merging.merge_methods import Factors, Options


#: (adapters' factors, options, module's name) -> A' [r, d_in] and B' [d_out, r].
Combine = Callable[["Sequence[Factors]", "Options", str], "tuple[Tensor, Tensor]"]
#: (adapters' ranks, (d_in, d_out), options) -> the rank of A' and B'.
Rank = Callable[["Sequence[int]", tuple[int, int], "Options"], int]


def largest_rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    """Return the largest of the adapters' ranks."""
    return max(ranks)


@dataclass(frozen=True)
class MergeMethod(Named):
    """A merge method, and properties of its result that are known before the merge.

    Attributes:
        combine: merges one module; float32 in, float32 out.
        rank: returns the rank of the result.
        uses: the names of the `Options` that the result depends on. A density that it uses must be
            set; the others have defaults.
        stacks: whether A' is the adapters' A matrices stacked in order, unchanged. `combine` may
            then get A matrices without columns.
        dense: whether B' may be nonzero at an entry where every adapter's B, padded with zeros on
            the right, is zero. If not, only the entries in the adapters' masks are stored.
        starts: whether the method needs the adapter that all others were trained from; its factors
            come first, and A' is its A.
        sums: whether the result is exactly the sum of the weighted updates w_t·ΔW_t (of their
            differences from the start's, where the method `starts`), so that weights have a
            gradient.
    """

    combine: Combine
    rank: Rank
    uses: tuple[str, ...]
    stacks: bool
    dense: bool
    starts: bool = False
    sums: bool = False

    @property
    def needs_density(self) -> bool:
        """Whether `density` must be set."""
        return "density" in self.uses

    @property
    def random(self) -> bool:
        """Whether the result depends on the seed."""
        return "seed" in self.uses


MERGE_METHODS: Registry[MergeMethod] = Registry("merge method", "lori_core.merging.catalogue")
#: The options that a merge method may use: the fields of `merge_methods.Options`.
OPTIONS = ("density", "rank", "majority_sign", "seed", "threshold")


def merge_method(
    name: str,
    label: str,
    about: str,
    *,
    needs: Sequence[str] = (),
    rank: Rank = largest_rank,
    stacks: bool = False,
    dense: bool = True,
    starts: bool = False,
    sums: bool = False,
) -> Callable[[Combine], Combine]:
    """Register a function that merges one module of several adapters.

    Its arguments are the adapters' `Factors`, the `Options` and the module's name. It returns A'
    [r, d_in] and B' [d_out, r], float32, with scaling 1.

    Args:
        name: the name in `merge.<name>.method` and `lori merge --method`.
        label: the name in tables.
        about: a description of one sentence.
        needs: the names in `OPTIONS` that the result depends on; users may set no others.
        rank: returns r from the adapters' ranks, (d_in, d_out) and the options; by default the
            largest rank.
        stacks: see `MergeMethod`.
        dense: see `MergeMethod`; verified in each merge.
        starts: see `MergeMethod`.
        sums: see `MergeMethod`.

    Raises:
        ValueError: the name is taken, or an option does not exist.
    """
    for option in needs:
        if option not in OPTIONS:
            raise ValueError(
                f"merge method {name!r}: needs {option!r}, which is no option of merges (allowed: "
                f"{', '.join(OPTIONS)})"
            )

    def register(function: Combine) -> Combine:
        facts = (tuple(needs), stacks, dense, starts, sums)
        method = MergeMethod(name, label, about, current_extension(), function, rank, *facts)
        MERGE_METHODS.add(method)
        return function

    return register
