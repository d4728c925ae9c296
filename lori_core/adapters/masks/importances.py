"""What B's entries are ranked by when a mask is taken: every importance (METHOD, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lori_core.core.files.atomic import digest
from lori_core.registries.mask import IMPORTANCES, importance

if TYPE_CHECKING:
    from torch import Tensor


#: What is registered below, for whoever needs it done.
KINDS = IMPORTANCES


@dataclass(frozen=True)
class Calibrated:
    """A calibrated adapter, as an importance sees it.

    Attributes:
        shapes: (d_out, rank) of each module's B, in the model's order.
        B: [d_out, rank], float32, by module.
        gradient: of the training examples' losses at B, what the importance asks for: their mean,
            or the mean of their squares; [d_out, rank], float32, by module; empty where it asks for
            none.
        seed: `lori.seed`.
        task: the task's name.
    """

    shapes: Mapping[str, tuple[int, int]]
    B: Mapping[str, Tensor]
    gradient: Mapping[str, Tensor]
    seed: int
    task: str


@importance("magnitude", "magnitude", "|B|, the paper's (eq. 2)")
def magnitude(at: Calibrated) -> dict[str, Tensor]:
    """Return |B|."""
    return {name: at.B[name].abs() for name in at.shapes}


@importance("fisher", "Fisher", "the mean of an example's squared gradient", gradient="mean_square")
def fisher(at: Calibrated) -> Mapping[str, Tensor]:
    """Return the diagonal of the empirical Fisher information."""
    return at.gradient


@importance("snip", "SNIP", "|B times the mean gradient|", gradient="mean")
def snip(at: Calibrated) -> dict[str, Tensor]:
    """Return |B ⊙ mean gradient|."""
    return {name: (gradient * at.B[name]).abs() for name, gradient in at.gradient.items()}


@importance("random", "random", "uniform noise: a control")
def random(at: Calibrated) -> dict[str, Tensor]:
    """Return noise."""
    return noise(at.shapes, at.seed, at.task)


def noise(shapes: Mapping[str, tuple[int, int]], seed: int, task: str) -> dict[str, Tensor]:
    """Return uniform noise of each B's shape, float32, drawn from (seed, task)."""
    import numpy as np
    import torch

    drawn = np.random.default_rng(int(digest([seed, task])[:15], 16))
    return {
        name: torch.from_numpy(drawn.random(shape, dtype=np.float32))
        for name, shape in shapes.items()
    }
