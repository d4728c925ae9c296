"""Merge weights by gradient: minimise the tasks' normalised losses on held-out examples.

With L_t(w) the loss of task t in the merge, L_t(base) without an adapter and L_t(own) with the
task's own adapter, the objective is

    J(w) = Σ_t λ_t·(L_t(w) − L_t(own)) / (L_t(base) − L_t(own)) + u·mean((w − w̄)²)

so a task counts by the share of its adapter's gain that it loses (eq. 3), and the weights are
penalised for differing from w̄, the mean of all of them. The λ_t sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lori_core.core.errors import InputError
from lori_core.data.prompts import Encoded
from lori_core.merging.learned.branches import Branches
from lori_core.training.kernels.packed_batches import batches_of, on_device, takes_packed
from lori_core.training.loss import example_losses

#: Below this share of L_t(base), a gain L_t(base) − L_t(own) counts as none.
LEAST_GAIN = 0.01
#: Descent ends when a pass over the examples improves the objective by less than this.
ENOUGH = 0.01
#: The most tokens that are computed at a time, unless one task's batch alone has more.
TOKENS = 2048


@dataclass(frozen=True)
class Descent:
    """The settings of a descent.

    Attributes:
        steps: the most steps; each takes `batch` examples of each task.
        batch: the examples of each task in a step.
        learning_rate: Adam's.
        uniformity: the factor u of the penalty on weights that differ.
    """

    steps: int
    batch: int
    learning_rate: float
    uniformity: float


def counted_gain(base: float, own: float) -> float:
    """Return L_t(base) − L_t(own), or L_t(own) where this is no more than `LEAST_GAIN` · L_t(base).

    It divides a task's excess loss. Divided by next to nothing, a task whose adapter learned
    nothing would count more than all others.
    """
    gain = base - own
    return gain if gain > LEAST_GAIN * base else max(own, 1e-6)


def spread(weights: Tensor) -> Tensor:
    """Return the mean square of the deviations of weights from their mean, a scalar."""
    return (weights - weights.mean()).square().mean()


def descend(
    model: Any,
    branches: Branches,
    rows: Mapping[str, Sequence[Encoded]],
    factors: Mapping[str, float],
    settings: Descent,
    pad_token_id: int,
    say: Callable[[int, float], None],
) -> int:
    """Improve the weights of the branches in place by Adam; return the number of steps.

    Args:
        model: the base model with the branches.
        branches: the branches; their weights are changed.
        rows: by task, the tokenised examples.
        factors: by task, λ_t / `counted_gain`, the factor of the mean loss.
        settings: the settings.
        pad_token_id: for models that cannot take packed batches.
        say: called with each step's number and objective (without the constant terms).

    Raises:
        InputError: the loss is not a finite number.
    """
    optimizer = torch.optim.Adam([branches.weights], lr=settings.learning_rate)
    batches = {task: _cycle(some, settings.batch) for task, some in rows.items()}
    each = max(-(-len(some) // settings.batch) for some in rows.values())
    seen: list[float] = []
    with batches_of(model, pad_token_id, takes_packed(model)) as make:
        for step in range(1, settings.steps + 1):
            optimizer.zero_grad()
            seen.append(_step(model, branches, batches, factors, settings.uniformity, make))
            say(step, seen[-1])
            torch.nn.utils.clip_grad_norm_([branches.weights], 1.0)
            optimizer.step()
            if len(seen) >= 2 * each and len(seen) % each == 0:
                now, before = sum(seen[-each:]) / each, sum(seen[-2 * each : -each]) / each
                if before - now < ENOUGH:
                    break
    return len(seen)


def _step(
    model: Any,
    branches: Branches,
    batches: Mapping[str, Iterator[list[Encoded]]],
    factors: Mapping[str, float],
    uniformity: float,
    make: Callable[[Sequence[Encoded]], Mapping[str, Any]],
) -> float:
    """Add the objective's gradient on one batch of each task; return the objective."""
    penalty = uniformity * spread(branches.weights)
    penalty.backward()
    total = float(penalty.detach())
    for some in _together({task: next(each) for task, each in batches.items()}):
        tasks = [task for task, rows in some.items() for _ in rows]
        batch = make([row for rows in some.values() for row in rows])
        losses = example_losses(model, on_device(batch, model.device))
        for task, each in zip(tasks, losses.tolist(), strict=True):
            if not math.isfinite(each):
                raise InputError(
                    f"search: the loss of {task} is {each}; use model.dtype float32, or smaller "
                    "weights to start from"
                )
        loss = (losses * losses.new_tensor([factors[t] / len(some[t]) for t in tasks])).sum()
        loss.backward()
        total += float(loss.detach())
    return total


def _together(batches: Mapping[str, list[Encoded]]) -> Iterator[dict[str, list[Encoded]]]:
    """Yield the tasks' batches, as many at a time as have at most `TOKENS` tokens."""
    some: dict[str, list[Encoded]] = {}
    tokens = 0
    for task, rows in batches.items():
        more = sum(map(len, rows))
        if some and tokens + more > TOKENS:
            yield some
            some, tokens = {}, 0
        some[task] = rows
        tokens += more
    yield some


def _cycle(rows: Sequence[Encoded], size: int) -> Iterator[list[Encoded]]:
    """Yield batches of about `size` examples again and again, each of short and long examples."""
    ordered = sorted(rows, key=len)
    count = -(-len(ordered) // size)
    while True:
        # So that all steps give the tasks similar weight.
        yield from (ordered[start::count] for start in range(count))
