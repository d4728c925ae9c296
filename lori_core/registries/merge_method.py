"""Merge methods: the registry, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lori_core.registries.registry import Named, Registry, running

if TYPE_CHECKING:
    from torch import Tensor

    from lori_core.merging.merge_methods import Factors, Options


#: The adapters (at least one), the options, the module's name -> A' [r, d_in], B' [d_out, r].
Combine = Callable[["Sequence[Factors]", "Options", str], "tuple[Tensor, Tensor]"]
#: The adapters' ranks, (d_in, d_out), the options -> the rank of A' and B'.
Rank = Callable[["Sequence[int]", tuple[int, int], "Options"], int]


def largest_rank(ranks: Sequence[int], size: tuple[int, int], options: Options) -> int:
    """Return the largest of the adapters' ranks."""
    return max(ranks)


@dataclass(frozen=True)
class MergeMethod(Named):
    """A merge method and what is known of its result before it is computed.

    Attributes:
        combine: merges one module; float32 in, float32 out.
        rank: the rank of its result.
        uses: the names of the `Options` its result depends on; a density that it uses has to be
            given, the others have defaults.
        stacks: A' is the adapters' A stacked in order, unchanged; the A given may then have no
            columns.
        dense: B' may be other than zero where every adapter's B, padded with zeros on the right, is
            zero. Where it may not, only the entries that an adapter keeps are stored.
    """

    combine: Combine
    rank: Rank
    uses: tuple[str, ...]
    stacks: bool
    dense: bool

    @property
    def needs_density(self) -> bool:
        """Whether `density` has to be given."""
        return "density" in self.uses

    @property
    def random(self) -> bool:
        """Whether the result depends on the seed."""
        return "seed" in self.uses


MERGE_METHODS: Registry[MergeMethod] = Registry("merge method", "lori_core.merging.catalogue")
#: What a merge method may use: the fields of `merge_methods.Options`.
OPTIONS = ("density", "rank", "majority_sign", "seed")


def merge_method(
    name: str,
    label: str,
    about: str,
    *,
    needs: Sequence[str] = (),
    rank: Rank = largest_rank,
    stacks: bool = False,
    dense: bool = True,
) -> Callable[[Combine], Combine]:
    """Register a function that merges one module of several adapters.

    Its arguments: the adapters' `Factors`, the `Options`, the module's name. It returns A'
    [r, d_in] and B' [d_out, r], float32, of scaling 1.

    Args:
        name: for `merge.<name>.method` and `lori merge --method`.
        label: what tables call it.
        about: one sentence.
        needs: which of `OPTIONS` the result depends on; others are refused where they are given.
        rank: the adapters' ranks, (d_in, d_out) and the options -> r; by default the largest rank.
        stacks: see `MergeMethod`.
        dense: see `MergeMethod`; what is said here is checked when a merge is computed.

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
        MERGE_METHODS.add(
            MergeMethod(name, label, about, running(), function, rank, tuple(needs), stacks, dense)
        )
        return function

    return register
