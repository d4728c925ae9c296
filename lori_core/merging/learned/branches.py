"""Adapters as parallel branches of a base model, each with a weight that can be learned.

A module computes W0·x + Σ_t w_t·s_t·B_t @ (A_t @ x). The factors are frozen and in the base's
dtype; only the weights w have gradients. The base is loaded once and stays unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lori_core.adapters import attach
from lori_core.adapters.adapter import Adapter
from lori_core.merging.learned.weight_groups import By, group_of, groups_of


class Branches:
    """The weights of the adapters in a base model.

    Attributes:
        tasks: the adapters' names, in the order of the rows of `weights`.
        groups: the groups of modules, in the order of the columns.
        weights: [tasks, groups], float32, a leaf that requires gradients.
    """

    def __init__(self, tasks: list[str], groups: list[str], start: Tensor) -> None:
        self.tasks, self.groups = tasks, groups
        self.weights = start.detach().clone().requires_grad_()

    def values(self) -> dict[str, dict[str, float]]:
        """Return the weights by task, then by group."""
        rows = self.weights.detach().tolist()
        return {
            task: dict(zip(self.groups, row, strict=True))
            for task, row in zip(self.tasks, rows, strict=True)
        }


@contextmanager
def applied(
    model: nn.Module,
    adapters: Mapping[str, Adapter],
    start: Adapter | None,
    by: By,
    first: Mapping[str, float],
) -> Iterator[Branches]:
    """Add adapters to a base model as weighted branches while the block runs.

    Args:
        model: the base model.
        adapters: the adapters by task.
        start: for `on_safety`, the safety adapter, whose branch has the weight 1 and from which the
            others' differences are taken; else None.
        by: the groups of modules that share a weight.
        first: the weights to start from, by task.

    Yields:
        The branches, whose weights may be changed in place.

    Raises:
        AdapterError: the model lacks a module of an adapter.
    """
    every = [*adapters.values(), *([] if start is None else [start])]
    own = [attach.check(model, adapter) for adapter in every]
    names = list(dict.fromkeys(name for of in own for name in of))
    groups = groups_of((own_name(own, name) for name in names), by)
    rows = torch.tensor([[first[task]] * len(groups) for task in adapters], dtype=torch.float32)
    branches = Branches(list(adapters), groups, rows.to(next(model.parameters()).device))
    hooks = []
    try:
        for name in names:
            column = groups.index(group_of(own_name(own, name), by))
            parents = [
                (row, adapter, of[name])
                for row, (adapter, of) in enumerate(zip(adapters.values(), own, strict=False))
                if name in of
            ]
            linear = model.get_submodule(name)
            branch = _Branch.of(parents, start, branches, column, linear)
            hooks.append(linear.register_forward_hook(branch))
        yield branches
    finally:
        for hook in hooks:
            hook.remove()


def own_name(own: list[dict[str, str]], name: str) -> str:
    """Return an adapter's name of one of the model's modules."""
    return next(of[name] for of in own if name in of)


class _Branch:
    """The branches of one module, as a forward hook.

    Attributes:
        A: [R, d_in], the adapters' A stacked; one A where they share it.
        B: [d_out, k], the adapters' s_t·B_t side by side.
        row: [k], the row of each column's weight; -1 for the weight 1.
        column: the module's group.
    """

    def __init__(
        self, A: Tensor, B: Tensor, row: Tensor, repeat: int, branches: Branches, column: int
    ) -> None:
        self.A, self.B, self.row, self.repeat = A, B, row, repeat
        self.branches, self.column = branches, column

    @classmethod
    def of(
        cls,
        parents: list[tuple[int, Adapter, str]],
        start: Adapter | None,
        branches: Branches,
        column: int,
        like: Any,
    ) -> _Branch:
        """Build the branches of one module from the adapters that have it."""
        scaled = [(row, a.B(name) * a.scaling(name)) for row, a, name in parents]
        if start is None:
            A, repeat = torch.cat([a.A(name) for _, a, name in parents]), 1
        else:
            name = parents[0][2]
            A, fixed = start.A(name), start.B(name) * start.scaling(name)
            scaled = [(-1, fixed), *((row, B - fixed) for row, B in scaled)]
            repeat = len(scaled)
        rows = torch.cat([torch.full((B.shape[1],), row) for row, B in scaled])
        B = torch.cat([B for _, B in scaled], dim=1)
        device, dtype = like.weight.device, branch_dtype(like)
        return cls(
            A.to(device, dtype), B.to(device, dtype), rows.to(device), repeat, branches, column
        )

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the module's output with the branches added."""
        weights = self.branches.weights[:, self.column]
        weights = torch.cat([weights, weights.new_ones(1)])[self.row]
        hidden = nn.functional.linear(inputs[0].to(self.A.dtype), self.A)
        if self.repeat > 1:
            hidden = hidden.repeat(*[1] * (hidden.dim() - 1), self.repeat)
        hidden = (hidden * weights).to(self.B.dtype)
        return output + nn.functional.linear(hidden, self.B).to(output.dtype)


def branch_dtype(linear: Any) -> torch.dtype:
    """Return the dtype of a linear layer's branches; that of computation for quantised weights."""
    dtype = linear.weight.dtype
    return dtype if dtype.is_floating_point else getattr(linear, "compute_dtype", torch.bfloat16)
