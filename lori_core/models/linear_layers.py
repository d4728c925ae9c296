"""What a linear map is: a module whose output is W x + b, on which PEFT puts B @ A beside W."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear


def is_transposed(module: nn.Module) -> bool:
    """Say whether a linear map keeps its weight as [d_in, d_out], as GPT-2's `Conv1D` does."""
    return type(module).__name__ == "Conv1D"


def is_linear(module: nn.Module) -> bool:
    """Say whether a module is a linear map, quantised or not.

    An embedding is none, nor is a router, which makes a choice of experts from its weight's
    product, nor the output map of torch's attention, which is read and never called.
    """
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 2 or isinstance(module, NonDynamicallyQuantizableLinear):
        return False
    if not isinstance(module, nn.Linear):
        return is_transposed(module) or hasattr(module, "in_features")
    own = type(module).forward is nn.Linear.forward
    return own or not type(module).__module__.startswith("transformers.") or _maps(module)


def features(module: Any) -> tuple[int, int]:
    """Return (d_in, d_out) of a linear map."""
    if hasattr(module, "in_features"):
        return int(module.in_features), int(module.out_features)
    rows, columns = module.weight.shape
    return int(rows), int(columns)


@torch.no_grad()
def _maps(module: nn.Linear) -> bool:
    """Say whether a linear layer with a forward pass of its own still gives one vector for one."""
    weight = module.weight
    if not weight.is_floating_point():
        return True  # quantised by transformers
    try:
        found = module(torch.zeros(1, module.in_features, dtype=weight.dtype, device=weight.device))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    return isinstance(found, Tensor) and found.shape == (1, module.out_features)
