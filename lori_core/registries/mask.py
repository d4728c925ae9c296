"""The registries of importances, mask scopes and structures, and the decorators that add one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lori_core.registries.registry import Named, Registry, current_extension

if TYPE_CHECKING:
    from torch import Tensor

    from lori_core.adapters.masks.importances import Calibrated


Scores = Callable[["Calibrated"], "Mapping[str, Tensor]"]
Group = Callable[[str], str]
Size = Callable[[int], tuple[int, int]]
#: What an importance may request: the mean over examples of the gradient g, or of g².
Gradient = Literal["mean", "mean_square"]


@dataclass(frozen=True)
class Importance(Named):
    """An importance score, by which a mask selects entries of B.

    Attributes:
        score: returns nonnegative scores, [d_out, rank], by module, of a calibrated adapter.
        gradient: the mean over the training examples' gradients that it needs; None for none.
    """

    score: Scores
    gradient: Gradient | None


IMPORTANCES: Registry[Importance] = Registry("importance", "lori_core.adapters.masks.importances")


def importance(
    name: str, label: str, about: str, *, gradient: Gradient | None = None
) -> Callable[[Scores], Scores]:
    """Register a function that scores the entries of B of a calibrated adapter.

    Its argument is an `importances.Calibrated`. It returns nonnegative scores by module, each
    [d_out, rank]; the mask keeps the entries with the largest.

    Args:
        name: the name in `lori.importance`.
        label: the name in tables.
        about: a description of one sentence.
        gradient: `mean` or `mean_square` over the training examples, for `Calibrated.gradient`;
            None for a score that needs no gradient.
    """

    def register(function: Scores) -> Scores:
        IMPORTANCES.add(Importance(name, label, about, current_extension(), function, gradient))
        return function

    return register


@dataclass(frozen=True)
class MaskScope(Named):
    """A partition of the modules into groups whose entries are ranked together.

    Attributes:
        group: returns the name of a module's group from the module's name.
    """

    group: Group


MASK_SCOPES: Registry[MaskScope] = Registry("mask scope", "lori_core.adapters.masks.mask_choices")


def mask_scope(name: str, label: str, about: str) -> Callable[[Group], Group]:
    """Register a function that returns a module's group from the module's name."""

    def register(function: Group) -> Group:
        MASK_SCOPES.add(MaskScope(name, label, about, current_extension(), function))
        return function

    return register


@dataclass(frozen=True)
class Structure(Named):
    """A block of entries of B that a mask keeps or drops as a whole.

    Attributes:
        size: returns the block's (height, width) in a B, [d_out, rank], from the rank.
    """

    size: Size


STRUCTURES: Registry[Structure] = Registry("structure", "lori_core.adapters.masks.mask_choices")


def structure(name: str, label: str, about: str) -> Callable[[Size], Size]:
    """Register a function that returns a structure's (height, width) in a B from the rank."""

    def register(function: Size) -> Size:
        STRUCTURES.add(Structure(name, label, about, current_extension(), function))
        return function

    return register
