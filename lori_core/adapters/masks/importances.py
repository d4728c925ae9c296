"""The importance scores by which a mask selects entries of B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lori_core.core.files.atomic import digest
from lori_core.registries.mask import IMPORTANCES, importance

if TYPE_CHECKING:
    from torch import Tensor


#: The registry that this module fills.
KINDS = IMPORTANCES


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration run, as passed to an importance function.

    Attributes:
        shapes: (d_out, rank) of each module's B, in the model's order.
        B: [d_out, rank], float32, by module.
        gradient: mean, or mean square, over the training examples of the gradient of the loss with
            respect to B, as the importance requests; [d_out, rank], float32, by module; empty if
            it requests none.
        seed: `lori.seed`.
        task: the task's name.
    """

    shapes: Mapping[str, tuple[int, int]]
    B: Mapping[str, Tensor]
    gradient: Mapping[str, Tensor]
    seed: int
    task: str


@importance("magnitude", "magnitude", "|B|, the paper's (eq. 2)")
def magnitude(calibrated: Calibrated) -> dict[str, Tensor]:
    """Return |B| (paper, eq. 2)."""
    return {name: calibrated.B[name].abs() for name in calibrated.shapes}


@importance("fisher", "Fisher", "the mean of an example's squared gradient", gradient="mean_square")
def fisher(calibrated: Calibrated) -> Mapping[str, Tensor]:
    """Return the diagonal of the empirical Fisher information."""
    return calibrated.gradient


@importance("snip", "SNIP", "|B times the mean gradient|", gradient="mean")
def snip(calibrated: Calibrated) -> dict[str, Tensor]:
    """Return |B ⊙ mean gradient|."""
    B = calibrated.B
    return {name: (gradient * B[name]).abs() for name, gradient in calibrated.gradient.items()}


@importance("random", "random", "uniform noise: a control")
def random(calibrated: Calibrated) -> dict[str, Tensor]:
    """Return uniform noise, independent of B."""
    return noise(calibrated.shapes, calibrated.seed, calibrated.task)


def noise(shapes: Mapping[str, tuple[int, int]], seed: int, task: str) -> dict[str, Tensor]:
    """Return uniform noise on [0, 1), [d_out, rank], float32, by module, seeded by (seed, task)."""
    import numpy as np
    import torch

    generator = np.random.default_rng(int(digest([seed, task])[:15], 16))
    return {
        name: torch.from_numpy(generator.random(shape, dtype=np.float32))
        for name, shape in shapes.items()
    }
