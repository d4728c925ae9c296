"""Recognise linear layers: modules with output W x + b, to which PEFT can add B @ A x."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear


def is_transposed(module: nn.Module) -> bool:
    """Return whether a linear layer stores its weight as [d_in, d_out], as GPT-2's `Conv1D`."""
    return type(module).__name__ == "Conv1D"


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear layer, quantised or not.

    False for embeddings, for routers, which select experts from the product, and for the output
    projection of `nn.MultiheadAttention`, whose weight is read and whose `forward` is not called.
    """
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 2 or isinstance(module, NonDynamicallyQuantizableLinear):
        return False
    if not isinstance(module, nn.Linear):
        return is_transposed(module) or hasattr(module, "in_features")
    own = type(module).forward is nn.Linear.forward
    return own or not type(module).__module__.startswith("transformers.") or _is_row_wise(module)


def features(module: Any) -> tuple[int, int]:
    """Return (d_in, d_out) of a linear layer."""
    if hasattr(module, "in_features"):
        return int(module.in_features), int(module.out_features)
    rows, columns = module.weight.shape
    return int(rows), int(columns)


@torch.no_grad()
def _is_row_wise(module: nn.Linear) -> bool:
    """Return whether a subclass with its own `forward` turns [1, d_in] into [1, d_out]."""
    weight = module.weight
    if not weight.is_floating_point():
        return True  # quantised by transformers
    try:
        row = module(torch.zeros(1, module.in_features, dtype=weight.dtype, device=weight.device))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    return isinstance(row, Tensor) and row.shape == (1, module.out_features)
