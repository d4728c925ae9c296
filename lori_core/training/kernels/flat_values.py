"""The trained values of B of all layers as one tensor, so that a pass needs few kernels for them.

Each layer computes with a view of one B for the whole model: one cast and one `index_copy` a pass
in the forward direction, one gather in the backward direction, where each layer would need its own.
The layers' own parameters stay, as views of that tensor: optimizer, clipping and checkpoints are
unchanged, and so are all numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lori_core.adapters.sparse_parametrization import SparseB
from lori_core.models import peft_names


class FlatValues:
    """The trained values of several layers' B as one parameter.

    Args:
        linears: the layers' `lora_B`, parametrized by `SparseB`; all with a mask, or all without.
    """

    def __init__(self, linears: Sequence[Any]) -> None:
        lists = [linear.parametrizations["weight"] for linear in linears]
        self.layers: list[SparseB] = [parametrization[0] for parametrization in lists]
        self.parameters: list[nn.Parameter] = [
            parametrization.original for parametrization in lists
        ]
        self.counts = [p.numel() for p in self.parameters]
        self.values = nn.Parameter(torch.cat([p.detach().flatten() for p in self.parameters]))
        for parameter, view in zip(
            self.parameters, self.values.detach().split(self.counts), strict=True
        ):
            parameter.data = view.view_as(parameter)
        self.sizes = [layer.shape[0] * layer.shape[1] for layer in self.layers]
        self.dtype = self.layers[0].dtype
        self.base, self.positions = self._frozen()
        self.weights: list[Tensor] = []

    def _frozen(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the frozen B and the trained positions of all layers; None without a mask."""
        bases, positions, start = [], [], 0
        for layer, size in zip(self.layers, self.sizes, strict=True):
            if layer.base is None or layer.positions is None:
                return None, None
            bases.append(layer.base)
            positions.append(layer.positions + start)
            start += size
        base = torch.cat(bases)
        for layer, view in zip(self.layers, base.split(self.sizes), strict=True):
            layer.base = view  # no second copy
        return base, torch.cat(positions)

    def begin_pass(self) -> None:
        """Compute B of all layers from the current values; call it before each forward pass."""
        values = self.values.to(self.dtype)
        whole = values
        if self.base is not None and self.positions is not None:
            whole = self.base.index_copy(0, self.positions, values)
        self.weights = [
            part.view(layer.shape) if self.base is None else part.view(layer.shape[::-1]).T
            for part, layer in zip(whole.split(self.sizes), self.layers, strict=True)
        ]

    def end_step(self) -> None:
        """Add its part of the gradient to each layer's parameter.

        A penalty is computed from the parameters themselves, which then have its gradient already.
        """
        gradient, self.values.grad, self.weights = self.values.grad, None, []
        if gradient is None:
            return
        for parameter, part in zip(self.parameters, gradient.split(self.counts), strict=True):
            view = part.view_as(parameter)
            parameter.grad = view if parameter.grad is None else view.add_(parameter.grad)

    def forget(self) -> None:
        """Delete the gradient and the weights of a step that is computed again."""
        self.values.grad, self.weights = None, []


def suits(device: torch.device) -> bool:
    """Return whether a device gains from fewer kernels."""
    return device.type == "cuda"


def unsupported_reason(model: nn.Module) -> str | None:
    """Return why a model's trained parameters cannot be one tensor; None if they can."""
    layers = [layer for _, layer in _linears(model)]
    own = {id(p) for p in model.parameters() if p.requires_grad}
    if not layers or own != {id(x.parametrizations["weight"].original) for x in layers}:
        return "more or other parameters than B are trained"
    sparse = [x.parametrizations["weight"][0] for x in layers]
    if len({(s.base is None, s.dtype) for s in sparse}) > 1:
        return "some layers have a mask or precision of their own"
    if len({x.parametrizations["weight"].original.device for x in layers}) > 1:
        return "the layers are on several devices"
    return None


def _linears(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the `lora_B` that `SparseB` parametrizes, by module."""
    found = []
    for name, layer in peft_names.lora_layers(model).items():
        linear = layer.lora_B[peft_names.ADAPTER]
        parametrizations = getattr(linear, "parametrizations", {})
        if "weight" in parametrizations and isinstance(parametrizations["weight"][0], SparseB):
            found.append((name, linear))
    return found


@contextmanager
def installed(model: nn.Module) -> Iterator[FlatValues | None]:
    """Let a model's layers use one tensor of trained values inside a `with` block.

    Yields:
        That tensor; None where it does not suit the model or its device.
    """
    device = next(model.parameters()).device
    if not suits(device) or unsupported_reason(model) is not None:
        yield None
        return
    flat = FlatValues([linear for _, linear in _linears(model)])
    for number, layer in enumerate(flat.layers):
        layer.forward = _part(flat, number)  # type: ignore[method-assign]
    try:
        yield flat
    finally:
        for layer in flat.layers:
            del layer.forward


def _part(flat: FlatValues, number: int) -> Any:
    def forward(values: Tensor) -> Tensor:
        return flat.weights[number]

    return forward
