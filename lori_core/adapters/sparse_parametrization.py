"""B as packed values: only the mask's entries are a parameter, the rest is a frozen base.

Optimizer, gradient and checkpoint see one vector a module. Weight decay, momentum and clipping
cannot touch anything else, so entries outside the mask stay bit-identical by construction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class PackedExpansion(nn.Module):
    """Turns packed values into a `lora_B.weight`: B = base, with `values` at `positions`.

    Args:
        base: the frozen B, [d_out, rank], float32; zeros for a fresh adapter.
        positions: flat indices of the trained entries, int64, [k]; None trains all of B.
        dtype: what B is computed with; values are kept in float32.

    Inside a mask B lies transposed: so does its gradient (`fused.py`), which needs no copy then.
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
            # In the computing precision: what `forward` puts the values into.
            outside = base.T.to(dtype).reshape(-1)
        self.register_buffer("base", outside, persistent=False)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return B, [d_out, rank], in the computing precision."""
        values = values.to(self.dtype)
        if self.base is None or self.positions is None:
            return values.view(self.shape)
        return self.base.index_copy(0, self.positions, values).view(self.shape[::-1]).T

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the packed float32 values that a dense B, [d_out, rank], starts training from."""
        weight = weight.detach().float()
        if self.positions is None:
            return weight.flatten().clone()
        return weight.T.flatten()[self.positions]


def make_sparse(
    linear: nn.Linear, start: Tensor, positions: Tensor | None, dtype: torch.dtype
) -> None:
    """Make `linear.weight` a function of packed values, which begin as `start` at `positions`.

    Args:
        linear: PEFT's `lora_B` of one adapter; its weight is [d_out, rank].
        start: the B to start from, [d_out, rank], float32.
        positions: the trained entries; None for all.
        dtype: the computing precision.
    """
    place = linear.weight.device
    linear.weight = nn.Parameter(start.to(place))
    module = PackedExpansion(linear.weight.data, positions, dtype).to(place)
    # unsafe: the parametrization changes dtype, which torch would otherwise refuse.
    parametrize.register_parametrization(linear, "weight", module, unsafe=True)


def packed_values(linear: Any) -> nn.Parameter:
    """Return the trainable vector of a packed module, float32, [k]."""
    values: nn.Parameter = linear.parametrizations["weight"].original
    return values
