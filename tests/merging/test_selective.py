"""SafeMERGE against the dense definition of its agreement, and its choice module by module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lori_core import config
from lori_core.core.errors import ConfigError, InputError
from lori_core.merging import merge, selective
from lori_core.merging.merge_methods import Factors, Options, check_options
from support import random_adapter


def factors(seed: int, rank: int, index: int, weight: float = 0.5) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, 12, generator=generator)
    return Factors(A, torch.randn(10, rank, generator=generator), weight, 2.0, index)


def dense_agreement(task: Factors, safety: Factors) -> float:
    """The authors' code: the cosine of ΔW and V Vᵀ / ‖V‖ ΔW, entries flattened."""
    update, V = task.B @ task.A, safety.B @ safety.A
    projected = V @ V.T / V.norm() @ update
    return float(torch.nn.functional.cosine_similarity(projected.view(1, -1), update.view(1, -1)))


@pytest.mark.parametrize("ranks", [(3, 3), (2, 5), (8, 1)])
def test_the_agreement_is_its_dense_definition(ranks: tuple[int, int]) -> None:
    task, safety = factors(1, ranks[0], 0), factors(2, ranks[1], 1)
    found = selective.agreement(task, safety)
    assert found == pytest.approx(dense_agreement(task, safety), abs=1e-6)
    other = replace(task, weight=-3.0, scaling=0.1)
    assert selective.agreement(other, replace(safety, scaling=9.0)) == found
    assert 0 <= found <= 1


def test_an_update_inside_the_safety_adapters_only_direction_agrees_fully() -> None:
    safety = factors(2, 1, 1)
    task = replace(factors(1, 1, 0), B=safety.B * 0.3)
    assert selective.agreement(task, safety) == pytest.approx(1.0)
    apart = replace(task, B=torch.zeros_like(task.B))
    assert selective.agreement(apart, safety) == 0.0


def test_a_module_that_disagrees_is_merged_and_another_stays_as_it_is() -> None:
    task, safety = factors(1, 3, 0, 0.8), factors(2, 4, 1, 0.2)
    found = selective.agreement(task, safety)
    for threshold, weights in ((found * 1.01, (0.8, 0.2)), (found * 0.99, (1.0, 0.0))):
        A, B = selective.safemerge([task, safety], Options(threshold=threshold), "m")
        expected = weights[0] * 2.0 * task.B @ task.A + weights[1] * 2.0 * safety.B @ safety.A
        assert torch.allclose(B @ A, expected, atol=1e-5)
        assert (A.shape, B.shape) == ((7, 12), (10, 7))


def test_the_default_threshold_is_that_of_the_authors_code() -> None:
    task, safety = factors(1, 3, 0), factors(2, 4, 1)
    default = selective.safemerge([task, safety], Options(), "m")
    given = selective.safemerge([task, safety], Options(threshold=0.35), "m")
    assert all(map(torch.equal, default, given))


def test_adapters_are_merged_by_it() -> None:
    task, safety = (random_adapter(key=key, seed=n) for n, key in enumerate(("math", "safety"), 1))
    never = merge.merge("safemerge", [task, safety], [0.5, 0.5], Options(threshold=1e-9))
    always = merge.merge("safemerge", [task, safety], [0.5, 0.5], Options(threshold=1.0))
    name = next(iter(task.modules))
    assert torch.allclose(never.delta(name), task.delta(name), atol=1e-5)
    half = (task.delta(name) + safety.delta(name)) / 2
    assert torch.allclose(always.delta(name), half, atol=1e-5)
    assert never.info["recipe"]["content_key"] != always.info["recipe"]["content_key"]


def test_three_adapters_are_refused() -> None:
    parents = [factors(n, 2, n) for n in range(3)]
    with pytest.raises(InputError, match="merges two adapters, a task's and then the safety"):
        selective.safemerge(parents, Options(), "m")


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match=r"threshold: .* is outside \(0, 1\]"):
        check_options("safemerge", Options(threshold=threshold))


def test_a_run_names_the_task_and_the_safety_task() -> None:
    task: dict[str, Any] = {"source": "bundled-math", "calibration": {}, "training": {}}
    values: dict[str, Any] = {
        "model": {"name_or_path": "random:llama"},
        "lori": {},
        "training": {},
        "tasks": dict.fromkeys(("math", "code", "safety"), task),
        "merge": {"safe": {"method": "safemerge", "weights": [0.8, 0.2]}},
    }
    with pytest.raises(ConfigError, match=r"merge.safe"):
        config.parse(values, "params.yaml")
    values["merge"]["safe"] |= {"adapters": ["math", "safety"], "threshold": 0.5}
    assert config.parse(values, "params.yaml").merge["safe"].threshold == 0.5
    values["merge"]["safe"]["weights"] = 0.5
    values["merge"]["safe"]["adapters"] = []
    with pytest.raises(ConfigError, match=r"merge.safe.adapters: safemerge merges two .* got 3"):
        config.parse(values, "params.yaml")
