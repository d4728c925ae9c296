"""The forecast time of an experiment's points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lori_core import cost
from studies import catalogue
from studies.points import Score, Train
from studies.power import forecast
from support import smoke_params


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> cost.Model:
    params = smoke_params()
    splits = cost.count_splits(params, tmp_path_factory.mktemp("none") / "data")
    return cost.Model(params, splits, cost.DEVICES["h100"])


def built(name: str, **changes: Any) -> dict[str, Any]:
    changes = {"seeds": [1], "candidate_rates": [1e-3, 1e-2], "ablation_tasks": ["math"]} | changes
    return catalogue.build(smoke_params(**changes), [name]).by_name


def test_each_try_costs_a_run_and_the_chosen_one_is_copied(model: cost.Model) -> None:
    points = built("random-masks")
    found = forecast.forecast(points, points, model)
    dense = model.training("math", "calibration", "lori-d").seconds
    sparse = model.training("math", "training", "lori-s").seconds
    # Two rates of LoRI-D at two ranks, and of LoRI-S in a magnitude and in a random mask.
    assert found.training_seconds == pytest.approx(4 * dense + 4 * sparse)
    assert found.trainings == 4 * 2 + 4
    assert found.scorings == 4


def test_a_second_seed_is_trained_once(model: cost.Model) -> None:
    one, two = (
        forecast.forecast(points, points, model).training_seconds
        for points in (built("frozen-a"), built("frozen-a", seeds=[1, 2]))
    )
    assert two == pytest.approx(1.5 * one)


def test_only_what_would_run_is_counted(model: cost.Model) -> None:
    points = built("random-masks")
    assert forecast.forecast(points, [], model).seconds == 0
    (train, *_) = [name for name, point in points.items() if isinstance(point, Train)]
    found = forecast.forecast(points, [train, "random-masks"], model)
    assert (found.trainings, found.scorings) == (1, 0)


def test_a_short_calibration_costs_its_share(model: cost.Model) -> None:
    points = built("calibration-steps", calibration_steps=[1], learning_rates={})
    short = [n for n, p in points.items() if isinstance(p, Train) and p.training.max_steps == 1]
    found = forecast.forecast(points, short, model)
    whole = model.training("math", "calibration", "lori-d").seconds
    assert model.start_seconds < found.training_seconds < whole


def test_losses_alone_cost_no_generation(model: cost.Model) -> None:
    points = built("projections")
    scores = {name: p for name, p in points.items() if isinstance(p, Score)}
    alone = [name for name, point in scores.items() if point.losses == ("math",)]
    found = forecast.forecast(points, alone[:1], model)
    assert found.scoring_seconds == pytest.approx(model.start_seconds + model.losses("math"))
    assert model.losses("math") > 0


@pytest.mark.parametrize(
    ("seconds", "said"), [(90, "2 min"), (5400, "1.5 h"), (3 * 86_400, "3.0 days")]
)
def test_days_are_said(seconds: float, said: str, tmp_path: Path) -> None:
    lines = list(forecast.show(forecast.Forecast(2, seconds, 0, 0.0), "H100"))
    assert lines[0].startswith(f"forecast for one H100, one point after another: {said} (2 train")
    assert (len(lines) == 2) == (seconds > 86_400)
