"""Parametrize B so that only the entries inside the mask are trainable; the others are frozen.

Optimizer, gradient and checkpoint hold one vector per module. Weight decay, momentum and clipping
cannot change other entries, so entries outside the mask stay bit-identical by construction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class SparseB(nn.Module):
    """Compute `lora_B.weight` from its trainable entries: B = base, with `values` at `positions`.

    With a mask, B is stored transposed, like the gradient that `training/kernels/lora_linear.py`
    computes, which then needs no copy.

    Args:
        base: the frozen B, [d_out, rank], float32; zeros for a new adapter.
        positions: flat indices of the trained entries, int64, [k]; None trains all of B.
        dtype: the dtype of B in the forward pass; the trainable values are float32.
    """

    base: Tensor | None
    positions: Tensor | None

    def __init__(self, base: Tensor, positions: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = tuple(base.shape)
        self.dtype = dtype
        outside = None
        if positions is not None:
            d_out, rank = self.shape
            positions = positions % rank * d_out + positions // rank
            # In the compute dtype: `forward` copies the values into it.
            outside = base.T.to(dtype).reshape(-1)
        self.register_buffer("base", outside, persistent=False)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return B, [d_out, rank], in the compute dtype, from values [k], float32."""
        values = values.to(self.dtype)
        if self.base is None or self.positions is None:
            return values.view(self.shape)
        return self.base.index_copy(0, self.positions, values).view(self.shape[::-1]).T

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the trainable entries, [k], float32, of a dense B, [d_out, rank]."""
        weight = weight.detach().float()
        if self.positions is None:
            return weight.flatten().clone()
        return weight.T.flatten()[self.positions]


def make_sparse(
    linear: nn.Linear, start: Tensor, positions: Tensor | None, dtype: torch.dtype
) -> None:
    """Parametrize `linear.weight` by its entries at `positions`, initialised to those of `start`.

    Args:
        linear: PEFT's `lora_B` of one adapter; its weight is [d_out, rank].
        start: the initial B, [d_out, rank], float32.
        positions: flat indices of the trained entries, int64, [k]; None for all.
        dtype: the dtype of B in the forward pass.
    """
    device = linear.weight.device
    linear.weight = nn.Parameter(start.to(device))
    module = SparseB(linear.weight.data, positions, dtype).to(device)
    # unsafe: the parametrization changes dtype, which torch would otherwise refuse.
    parametrize.register_parametrization(linear, "weight", module, unsafe=True)


def trainable_values(linear: Any) -> nn.Parameter:
    """Return the trainable entries of a module that `make_sparse` parametrized, float32, [k]."""
    values: nn.Parameter = linear.parametrizations["weight"].original
    return values
