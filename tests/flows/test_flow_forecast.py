"""`lori plan`: the schedule of stages that share GPUs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from flows.planning import forecast, schedule
from flows.planning.forecast import Forecast, Line
from flows.versioning.graph import Stage
from lori_core.cost import DEVICES, Estimate, Rate


def made(parts: dict[str, int]) -> Forecast:
    """Four stages of a minute, of which ten seconds are for starting, on one GPU."""
    names = [f"train@t{number}" for number in range(4)]
    stages = [Stage(name, (), 1, "", ()) for name in names]
    simulated = schedule.simulate(stages, dict.fromkeys(names, 60.0), 1, parts, begin=10.0)
    lines = [Line(n, "run", ["new stage"], Estimate(60.0, 1e15, 30e9, 1e6), None) for n in names]
    return Forecast(lines, simulated, 1, DEVICES["h100"], parts, {})


def test_the_plan_says_how_many_stages_run_at_once() -> None:
    shared = made({f"train@t{number}": 4200 for number in range(4)})
    assert (shared.at_once, shared.totals()["wall_seconds"]) == (2, 220.0)
    assert any(
        line == "up to 2 stages at once, several on a GPU if their memory fits "
        "(execution.share_gpus)"
        for line in forecast.show(shared)
    )
    values = json.loads(forecast.as_json(shared))
    assert values["stages"]["train@t1"]["gpu_share"] == 0.42
    assert [values["stages"][f"train@t{n}"]["begins"] for n in range(4)] == [0.0, 0.0, 110.0, 110.0]
    assert values["totals"]["at_once"] == 2


def test_stages_that_share_nothing_run_one_after_another() -> None:
    alone = made({})
    assert (alone.at_once, alone.totals()["wall_seconds"]) == (0, 240.0)
    assert not any("at once" in line for line in forecast.show(alone))
    assert json.loads(forecast.as_json(alone))["stages"]["train@t1"]["gpu_share"] == 1.0


def test_a_setting_decides_how_many_share(monkeypatch: pytest.MonkeyPatch) -> None:
    from lori_core import cost
    from lori_core.pipeline import params_file

    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    params, text = params_file.changed(root / "profiles/smoke.yaml", None, [])
    monkeypatch.setattr(forecast.graph, "plan", lambda *_, **__: planned())
    monkeypatch.setattr(forecast.graph, "cached", lambda *_, **__: set())
    for most, at_once in ((1, 0), (3, 3)):
        found = forecast.forecast(root, params, cost.device("h100"), 1, text, most)
        assert found.at_once == at_once
    assert forecast.forecast(root, params, cost.device("cpu"), 1, text, 3).at_once == 0


def planned() -> object:
    """Return a plan of the smoke profile's masks and trainings, all stale."""
    from flows.versioning.graph import Plan

    names = [f"{step}@{task}" for step in ("calibrate", "mask") for task in ("math", "nlu")]
    stages = tuple(Stage(name, (), 1, "", ()) for name in names)
    return Plan(stages, {name: ["new stage"] for name in names})


def test_the_plan_says_which_speeds_are_measured_and_which_are_guesses() -> None:
    rates = (
        Rate("training", 0.204, True, "LoRI-D on one card"),
        Rate("training with PEFT's layers", 0.2, False, "PEFT on another card"),
        Rate("scoring and generation", 0.35, False, "not measured on any device"),
    )
    found = dataclasses.replace(made({}), rates=rates)
    assert [line for line in forecast.show(found) if line.startswith("speeds")] == [
        "speeds measured: training at 20 % of the device's peak (LoRI-D on one card)",
        "speeds guessed: training with PEFT's layers at 20 % of the device's peak "
        "(as PEFT on another card)",
        "speeds guessed: scoring and generation at 35 % of the device's peak "
        "(not measured on any device)",
        "speeds guessed: weights read from the disk at 1 GB/s",
    ]
    values = json.loads(forecast.as_json(found))["totals"]["rates"]
    assert values[0] == vars(rates[0])
