"""Forecast the excess loss of merges to first order, by gradients on validation examples.

A merge that changes the base model W0 by ΔW has, for task t with the weight w_t, the excess loss
(paper, eq. 3)

    L_t(W0 + ΔW) − L_t(W0 + w_t·ΔW_t) ≈ ⟨∇L_t(W0 + w_t·ΔW_t), ΔW − w_t·ΔW_t⟩

and for the exact sum the right side is Σ_{u≠t} w_u·⟨∇L_t, ΔW_u⟩. Every update is a branch of the
base model with a weight, so ⟨∇L_t, ΔW_u⟩ is the derivative of the loss by the weight of the branch
u. No gradient of d_out x d_in is formed. One backward pass per example of t gives the terms of all
updates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lori_core.adapters.adapter import Adapter
from lori_core.core.errors import InputError
from lori_core.core.progress import bar
from lori_core.data.batching import collate
from lori_core.data.prompts import Encoded
from lori_core.evaluation.statistics import mean_interval
from lori_core.merging.learned import branches as parallel
from lori_core.merging.learned.branches import Branches
from lori_core.merging.learned.descent import counted_gain
from lori_core.merging.merge import merge
from lori_core.merging.merge_methods import Options
from lori_core.training.loss import sequence_loss

#: The merge methods whose excess is forecast beside the exact sum, and their options.
OTHERS = {"linear": Options(), "ties": Options(density=0.7)}
#: The exact sum, whose excess is measured, too.
SUM = "concat"


@dataclass(frozen=True)
class Forecast:
    """The forecast of one merge method for one task, nats per example.

    Attributes:
        excess: the mean over the examples.
        low: the lower end of its 95 % interval; None with a single example.
        high: the upper end.
        share: the excess as a share of the gain, L_t(base) − L_t(own), as `counted_gain` counts it.
    """

    excess: float
    low: float | None
    high: float | None
    share: float


@dataclass(frozen=True)
class TaskForecast:
    """The forecasts for one task; losses are means in nats per example.

    Attributes:
        examples: the number of examples.
        base_loss: the loss of the base model.
        own_loss: the loss of the task's own update with its weight in the merge.
        merged_loss: the loss of the exact sum, measured.
        terms: by other task u, w_u·⟨∇L_t, ΔW_u⟩.
        methods: by merge method, its forecast.
    """

    examples: int
    base_loss: float
    own_loss: float
    merged_loss: float
    terms: Mapping[str, float]
    methods: Mapping[str, Forecast]

    @property
    def measured(self) -> float:
        """The measured excess loss of the exact sum."""
        return self.merged_loss - self.own_loss


def forecast(
    model: Any,
    adapters: Mapping[str, Adapter],
    weights: Mapping[str, float],
    rows: Mapping[str, Sequence[Encoded]],
    pad_token_id: int,
) -> dict[str, TaskForecast]:
    """Forecast the excess loss of the exact sum, `linear` and `ties` for each task.

    Args:
        model: the base model; unchanged afterwards.
        adapters: the adapters by task, at least two.
        weights: by task, its weight in the merge.
        rows: by task, its tokenised validation examples, at least one.
        pad_token_id: the tokenizer's.

    Raises:
        InputError: a loss or a derivative is not a finite number.
        AdapterError: the model lacks a module of an adapter.
    """
    tasks, every = list(adapters), list(adapters.values())
    each = [weights[task] for task in tasks]
    # Names of branches that no task can have.
    merged = {f" {name}": merge(name, every, each, options) for name, options in OTHERS.items()}
    start = dict.fromkeys([*tasks, *merged], 0.0)
    with parallel.applied(model, {**adapters, **merged}, None, "task", start) as branches:
        probe = Probe(model, branches, pad_token_id)
        return {task: _of_task(probe, task, tasks, weights, rows[task]) for task in tasks}


def _of_task(
    probe: Probe,
    task: str,
    tasks: Sequence[str],
    weights: Mapping[str, float],
    rows: Sequence[Encoded],
) -> TaskForecast:
    own = {task: weights[task]}
    losses, slopes = probe.slopes(task, rows, own)
    base = fmean(probe.losses(task, rows, {}))
    whole = fmean(probe.losses(task, rows, dict(weights)))
    by_branch = dict(zip(probe.branches.tasks, slopes.T, strict=True))
    terms = {other: weights[other] * by_branch[other] for other in tasks if other != task}
    gain = counted_gain(base, fmean(losses))
    excesses = {SUM: torch.stack(list(terms.values())).sum(0)}
    for name in OTHERS:
        excesses[name] = by_branch[f" {name}"] - weights[task] * by_branch[task]
    return TaskForecast(
        len(rows), base, fmean(losses), whole,
        {other: float(term.mean()) for other, term in terms.items()},
        {name: _summary(excess.tolist(), gain) for name, excess in excesses.items()},
    )  # fmt: skip


def _summary(excess: Sequence[float], gain: float) -> Forecast:
    low, high = mean_interval(excess) if len(excess) > 1 else (None, None)
    return Forecast(fmean(excess), low, high, fmean(excess) / gain)


@dataclass(frozen=True)
class Probe:
    """Measures losses, and their derivatives by the branches' weights, an example at a time.

    Attributes:
        model: the base model with the branches.
        branches: the branches, whose weights the methods set; each has one group.
        pad_token_id: the tokenizer's.
    """

    model: Any
    branches: Branches
    pad_token_id: int

    def slopes(
        self, task: str, rows: Sequence[Encoded], weights: Mapping[str, float]
    ) -> tuple[list[float], Tensor]:
        """Return each example's loss, and the derivatives [examples, branches], float64."""
        self._set(weights)
        losses, slopes = [], []
        with bar(len(rows), f"gradients on {task}", "example") as progress:
            for row in rows:
                loss = self._loss(row)
                (slope,) = torch.autograd.grad(loss, self.branches.weights)
                losses.append(float(loss.detach()))
                slopes.append(slope[:, 0].double().cpu())
                progress.update(1)
        stacked = torch.stack(slopes)
        if not bool(stacked.isfinite().all()) or not all(map(math.isfinite, losses)):
            raise _not_finite(task)
        return losses, stacked

    @torch.no_grad()
    def losses(
        self, task: str, rows: Sequence[Encoded], weights: Mapping[str, float]
    ) -> list[float]:
        """Return each example's loss."""
        self._set(weights)
        losses = [float(self._loss(row)) for row in rows]
        if not all(map(math.isfinite, losses)):
            raise _not_finite(task)
        return losses

    def _set(self, weights: Mapping[str, float]) -> None:
        """Give every branch its weight; 0 to those without one."""
        for number, name in enumerate(self.branches.tasks):
            self.branches.weights.data[number] = weights.get(name, 0.0)

    def _loss(self, row: Encoded) -> Tensor:
        inputs = collate([row], self.pad_token_id)
        return sequence_loss(self.model, {n: t.to(self.model.device) for n, t in inputs.items()})


def _not_finite(task: str) -> InputError:
    return InputError(
        f"the loss of {task}, or its derivative, is not a finite number; use model.dtype float32, "
        "or smaller weights"
    )


def as_dict(forecasts: Mapping[str, TaskForecast]) -> dict[str, Any]:
    """Return forecasts by task as JSON values, with the method whose mean share is the least.

    Returns:
        `tasks`: by task, the fields of `TaskForecast`, and `measured`; `shares`: by merge method,
        the mean over the tasks of the forecast share of the gain that is lost; `recommended`.
    """
    shares = {
        method: fmean(task.methods[method].share for task in forecasts.values())
        for method in (SUM, *OTHERS)
    }
    return {
        "tasks": {
            name: asdict(task) | {"measured": task.measured} for name, task in forecasts.items()
        },
        "shares": shares,
        "recommended": min(shares, key=lambda method: shares[method]),
    }
