"""The forecast cost of a claim: of its own points, for each seed and item."""

from __future__ import annotations

import pytest

from lori_core import cost
from studies.analysis.claims import CLAIMS
from studies.analysis.rows import Experiment
from studies.analysis.verdicts import BY_SCORES, Part
from studies.power.costs import Cost, Costs
from support import smoke_params


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Costs:
    params = smoke_params(seeds=[1, 2, 3], learning_rates={"default": [1e-3, 1e-2]})
    splits = cost.count_splits(params, tmp_path_factory.mktemp("none") / "data")
    return Costs(params, splits, cost.DEVICES["h100"])


def parts_of(name: str, experiments: dict[str, Experiment]) -> tuple[str, list[Part]]:
    claim = next(claim for claim in CLAIMS if claim.name == name)
    return claim.experiment, list(claim.compare(experiments[claim.experiment], BY_SCORES))


def test_seconds_are_once_for_each_seed_and_for_each_item() -> None:
    assert Cost(100, 10, 0.5).seconds(3, 20) == 100 + 3 * (10 + 10)


def test_a_claim_costs_its_own_points(costs: Costs, exact: dict[str, Experiment]) -> None:
    one = costs.of(*parts_of("d_as_lora", exact))
    all_methods = costs.of(*parts_of("beats_all", exact))
    # LoRI-D and LoRA on two tasks; both learning rates of each are tried once.
    start = costs.model.start_seconds
    training = [
        costs.model.training(task, "calibration", method).seconds
        for task in ("math", "safety")
        for method in ("lora", "lori-d")
    ]
    assert one.once == pytest.approx(2 * sum(training))
    assert one.seed == pytest.approx(sum(training) + 4 * start)
    assert one.item > 0
    assert all_methods.seed > 3 * one.seed
    assert all_methods.item > 3 * one.item


def test_a_mask_costs_its_calibration_too(costs: Costs, exact: dict[str, Experiment]) -> None:
    sparse = costs.of(*parts_of("d_above_s", exact))
    dense = costs.of(*parts_of("d_as_lora", exact))
    assert sparse.once > 0
    assert sparse.item == pytest.approx(dense.item)
    assert sparse.seed == pytest.approx(dense.seed, rel=0.2)


def test_a_calibration_of_one_step_costs_its_share(
    costs: Costs, exact: dict[str, Experiment]
) -> None:
    found = []
    for steps in ([1], [10**6]):
        section = costs.params.experiments.model_copy(update={"calibration_steps": steps})
        params = costs.params.model_copy(update={"experiments": section})
        own = Costs(params, costs.splits, cost.DEVICES["h100"])
        found.append(own.of(*parts_of("more_steps", exact)).seed)
    assert found[0] < found[1]
