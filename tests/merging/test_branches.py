"""Adapters as weighted branches: the same model as the merge, and exact gradients of weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_on_safety import MATH, SAFETY
from test_on_safety import continual as trained_from_safety

from lori_core.adapters import attach
from lori_core.adapters.adapter import Adapter, LayerSpec
from lori_core.data.prompts import Encoded
from lori_core.merging.learned import branches as parallel
from lori_core.merging.learned.descent import Descent, descend, spread
from lori_core.merging.learned.weight_groups import By, MergeWeights
from lori_core.merging.merge import merge
from lori_core.training.kernels.packed_batches import batches_of
from lori_core.training.loss import example_losses
from support import random_adapter, tiny

IDS = torch.tensor([[5, 6, 7, 8, 9, 3]])
WEIGHTS = {"math": 0.5, "code": -0.25}


def small(key: str, rank: int, seed: int, architecture: str = "llama") -> Adapter:
    return random_adapter(architecture, key=key, rank=rank, alpha=rank / 4, seed=seed)


def pair(architecture: str = "llama") -> dict[str, Adapter]:
    return {"math": small("math", 4, 1, architecture), "code": small("code", 2, 2, architecture)}


def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=IDS).logits.float()
    return result


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_branches_compute_what_the_merge_computes(architecture: str) -> None:
    model, _, _ = tiny(architecture)
    before = logits(model).detach()
    adapters = pair(architecture)
    with parallel.applied(model, adapters, None, "task", WEIGHTS) as branches:
        assert (branches.tasks, branches.groups) == (["math", "code"], ["all"])
        found = logits(model)
    assert torch.equal(logits(model), before)
    merged = merge("concat", list(adapters.values()), list(WEIGHTS.values()))
    expected = logits(attach.apply_adapter(tiny(architecture)[0], merged))
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-2)


def test_the_branches_stand_on_the_safety_adapter_as_on_safety_does() -> None:
    model, _, _ = tiny("llama")
    adapters = {"math": MATH, "code": trained_from_safety("code", 2, alpha=12)}
    with parallel.applied(model, adapters, SAFETY, "task", WEIGHTS):
        found = logits(model)
    merged = merge("on_safety", list(adapters.values()), list(WEIGHTS.values()), start=SAFETY)
    expected = logits(attach.apply_adapter(tiny("llama")[0], merged))
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("by", "groups"), [("layer", 2), ("projection", 14)])
def test_weights_by_layer_and_projection_are_those_of_the_merge(by: By, groups: int) -> None:
    model, _, _ = tiny("llama")
    adapters = pair()
    with parallel.applied(model, adapters, None, by, WEIGHTS) as branches:
        assert len(branches.groups) == groups
        branches.weights.data += torch.linspace(-0.2, 0.3, 2 * groups).view(2, groups)
        weights = MergeWeights(by, branches.values())
        found = logits(model)
    each = [weights.of_modules(task, adapter.modules) for task, adapter in adapters.items()]
    merged = merge("concat", list(adapters.values()), each)
    parents = merged.info["recipe"]["parents"]
    assert parents[0]["weights"] == each[0]
    assert parents[0]["weight"] == pytest.approx(sum(each[0].values()) / len(each[0]))
    expected = logits(attach.apply_adapter(tiny("llama")[0], merged))
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_gradient_of_a_weight_is_that_of_finite_differences() -> None:
    model = tiny("llama")[0].double()
    adapters = pair()
    with parallel.applied(model, adapters, None, "task", WEIGHTS) as branches:
        branches.weights = branches.weights.detach().double().requires_grad_()

        def loss() -> torch.Tensor:
            scores: torch.Tensor = model(input_ids=IDS).logits.log_softmax(-1)[0, 2, 7]
            return scores

        loss().backward()
        gradient = branches.weights.grad
        assert gradient is not None
        for row in (0, 1):
            ends = []
            for step in (5e-3, -5e-3):
                branches.weights.data[row, 0] += step
                ends.append(float(loss().detach()))
                branches.weights.data[row, 0] -= step
            # The model's normalisation computes in float32, which limits the differences.
            assert float(gradient[row, 0]) == pytest.approx((ends[0] - ends[1]) / 1e-2, rel=1e-2)


@pytest.mark.parametrize("packed", [False, True])
def test_a_branch_of_the_output_layer_is_in_the_losses(packed: bool) -> None:
    model, changed = tiny("llama")[0], tiny("llama")[0]
    d_out, d_in = model.lm_head.weight.shape
    adapter = replace(
        small("math", 4, 1),
        modules={"lm_head": LayerSpec(d_in, d_out, 4, 4)},
        mask=None,
        values={"lm_head": torch.randn(4 * d_out, generator=torch.Generator().manual_seed(1))},
    )
    whole = changed.lm_head.weight + 0.5 * adapter.delta("lm_head")
    changed.lm_head.weight = torch.nn.Parameter(whole, requires_grad=False)
    with batches_of(model, 0, packed) as make:
        batch = make(ROWS[:3])
        without = example_losses(model, batch)
        with parallel.applied(model, {"math": adapter}, None, "task", {"math": 0.5}) as branches:
            found = example_losses(model, batch)
            found.sum().backward()
    with batches_of(changed, 0, packed):
        assert torch.allclose(found, example_losses(changed, batch), atol=1e-4)
    assert not torch.allclose(found, without, atol=1e-2)
    assert branches.weights.grad is not None
    assert float(branches.weights.grad) != 0


ROWS = [Encoded([5, 6, 7 + n % 3], [8, 9, 3], False) for n in range(8)]


def descended(uniformity: float) -> tuple[list[float], float]:
    """Return the objective of each step, and the spread of the last weights."""
    model, _, _ = tiny("llama")
    seen: list[float] = []
    settings = Descent(30, 8, 0.05, uniformity)
    with parallel.applied(model, pair(), None, "task", {"math": 0.3, "code": 0.3}) as branches:
        rows, factors = {"math": ROWS}, {"math": 1.0}
        steps = descend(
            model, branches, rows, factors, settings, 0, lambda _, loss: seen.append(loss)
        )
        assert len(seen) == steps
        return seen, float(spread(branches.weights.detach()))


def test_descent_lowers_the_objective_and_the_penalty_pulls_weights_together() -> None:
    objective, free = descended(0.0)
    assert objective[-1] < objective[0] - 0.01
    _, bound = descended(1000.0)
    assert bound < free


def test_descent_stops_early_when_nothing_improves() -> None:
    model, _, _ = tiny("llama")
    with parallel.applied(model, pair(), None, "task", WEIGHTS) as branches:
        steps = descend(
            model, branches, {"math": ROWS}, {"math": 0.0}, Descent(50, 4, 0.1, 0.0), 0,
            lambda *_: None,
        )  # fmt: skip
    assert steps == 4
