"""How masks are taken: importances, scopes and structures, and the decorators that add one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lori_core.registries.registry import Named, Registry, running

if TYPE_CHECKING:
    from torch import Tensor

    from lori_core.adapters.masks.importances import Calibrated


Scores = Callable[["Calibrated"], "Mapping[str, Tensor]"]
Group = Callable[[str], str]
Size = Callable[[int], tuple[int, int]]
#: What an importance may ask for of each example's gradients g: their mean, or that of g².
Gradient = Literal["mean", "mean_square"]


@dataclass(frozen=True)
class Importance(Named):
    """What B's entries are ranked by when a mask is taken.

    Attributes:
        score: the calibrated adapter -> scores that are not negative, [d_out, rank], by module.
        gradient: what it needs of the gradients of the training examples' losses, if anything.
    """

    score: Scores
    gradient: Gradient | None


IMPORTANCES: Registry[Importance] = Registry("importance", "lori_core.adapters.masks.importances")


def importance(
    name: str, label: str, about: str, *, gradient: Gradient | None = None
) -> Callable[[Scores], Scores]:
    """Register a function that scores the entries of B of a calibrated adapter.

    Its argument is an `importances.Calibrated`. It returns scores that are not negative, by module,
    each [d_out, rank]; the largest are kept.

    Args:
        name: for `lori.importance`.
        label: what tables call it.
        about: one sentence.
        gradient: `mean` or `mean_square` over the training examples, for `Calibrated.gradient`;
            None for a score that needs no model.
    """

    def register(function: Scores) -> Scores:
        IMPORTANCES.add(Importance(name, label, about, running(), function, gradient))
        return function

    return register


@dataclass(frozen=True)
class MaskScope(Named):
    """Inside what entries compete for their place in a mask.

    Attributes:
        group: a module's name -> the name of the group it competes in.
    """

    group: Group


MASK_SCOPES: Registry[MaskScope] = Registry("mask scope", "lori_core.adapters.masks.mask_choices")


def mask_scope(name: str, label: str, about: str) -> Callable[[Group], Group]:
    """Register a function that returns the group in which a module's entries compete."""

    def register(function: Group) -> Group:
        MASK_SCOPES.add(MaskScope(name, label, about, running(), function))
        return function

    return register


@dataclass(frozen=True)
class Structure(Named):
    """What of B is kept or masked out as a whole.

    Attributes:
        size: a B's rank -> the structure's height and width in B, [d_out, rank].
    """

    size: Size


STRUCTURES: Registry[Structure] = Registry("structure", "lori_core.adapters.masks.mask_choices")


def structure(name: str, label: str, about: str) -> Callable[[Size], Size]:
    """Register a function that returns a structure's height and width in a B of some rank."""

    def register(function: Size) -> Size:
        STRUCTURES.add(Structure(name, label, about, running(), function))
        return function

    return register
