"""Every experiment on the tiny model, from its points to its figure."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core.adapters import adapter_file
from lori_core.core.tracking import NullTracker
from lori_core.data.sources import pulling
from studies import catalogue, points, running, stages
from studies.points import Train
from support import smoke_params


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run all points of all experiments once, in one process."""
    folder = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = smoke_params(seeds=[1], learning_rates={"default": [1e-3, 1e-2]})
        values = params.model_dump(mode="json")
        for task in ("math", "safety"):
            values["tasks"][task]["sizes"] = {"train": 16, "validation": 4, "test": 8}
        params = type(params).model_validate(values)
        pulling.pull(params)
        found = catalogue.build(params, ["all"])
        stages.write(found)
        for name in found.by_name:
            running.run(name, NullTracker())
        stages.report(NullTracker())
        yield folder


@pytest.mark.real
@pytest.mark.parametrize("name", catalogue.EXPERIMENTS)
def test_each_experiment_gives_its_figure(finished: Path, name: str) -> None:
    summary = json.loads((finished / "experiments" / "report" / "summary.json").read_text())
    part = summary["experiments"][name]
    assert part["figures"] or part["tables"]
    for figure in part["figures"]:
        for kind in ("png", "svg"):
            assert (finished / "experiments" / "report" / figure[kind]).stat().st_size > 1000
    rows = json.loads((finished / "metrics" / "experiments" / f"{name}.json").read_text())["rows"]
    assert rows
    assert all(row["seed"] == 1 for row in rows)


@pytest.mark.real
def test_the_rate_with_the_least_validation_loss_is_used(finished: Path) -> None:
    named = json.loads((finished / "experiments" / "points.json").read_text())
    checked = 0
    for name in named:
        point = points.load(name, finished / "experiments" / "points.json")
        if not isinstance(point, Train) or not point.tries:
            continue
        facts: dict[str, Any] = json.loads(
            (finished / "artifacts" / "experiments" / name / "facts.json").read_text()
        )
        best = min(facts["tried"], key=facts["tried"].get)
        assert f"{facts['learning_rate']:g}" == best
        checked += 1
    assert checked > 24


@pytest.mark.real
def test_a_chosen_rate_changes_no_other_setting(finished: Path) -> None:
    """A calibration of few steps has few, whatever rate was chosen for long ones."""
    named = json.loads((finished / "experiments" / "points.json").read_text())
    loaded = {n: points.load(n, finished / "experiments" / "points.json") for n in named}
    short = {
        name: point.training.max_steps
        for name, point in loaded.items()
        if isinstance(point, Train) and point.tries and point.training.max_steps
    }
    assert len(set(short.values())) > 1
    for name, steps in short.items():
        path = finished / "artifacts" / "experiments" / name / "facts.json"
        assert json.loads(path.read_text())["steps"] == steps


@pytest.mark.real
def test_a_run_that_was_tried_is_not_trained_again(finished: Path) -> None:
    """The chosen run with the first seed is the best try itself, byte for byte."""
    folder = finished / "artifacts" / "experiments"
    for path in folder.glob("train-lora-math-s1-*"):
        facts = json.loads((path / "facts.json").read_text())
        if "start" in path.name or not facts["tried"]:
            continue
        files = {p.name: p.read_bytes() for p in (path / "model").iterdir()}
        alike = [
            other
            for other in folder.glob("train-lora-math-s1-*")
            if other != path
            and {p.name: p.read_bytes() for p in (other / "model").iterdir()} == files
        ]
        point = points.load(path.name, finished / "experiments" / "points.json")
        assert isinstance(point, Train)
        assert len(alike) == (0 if point.start else 1)


@pytest.mark.real
def test_scores_of_one_model_are_the_same_in_every_experiment(finished: Path) -> None:
    def loss(experiment: str, **wanted: Any) -> list[float]:
        path = finished / "metrics" / "experiments" / f"{experiment}.json"
        rows = json.loads(path.read_text())["rows"]
        return [
            row["value"]
            for row in rows
            if row["metric"] == "loss"
            and row["task"] == "math"
            and all(row.get(key) == value for key, value in wanted.items())
        ]

    own = loss("single-task", method="lori-s")
    assert len(own) == 1
    assert own == loss("granularity", scope="model") == loss("importance", importance="magnitude")
    assert own == loss("structured", structure="none")
    assert own == loss("merge-four", method="lori-s", merge="single-task")


def trainings(finished: Path) -> dict[str, Train]:
    path = finished / "experiments" / "points.json"
    return {name: p for name, p in points.load_all(path).items() if isinstance(p, Train)}


def rows_of(finished: Path, name: str) -> list[dict[str, Any]]:
    path = finished / "metrics" / "experiments" / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


@pytest.mark.real
def test_a_is_drawn_in_the_way_that_a_point_names(finished: Path) -> None:
    shared: dict[tuple[int, float], list[Any]] = {}
    avoiding = 0
    for name, point in trainings(finished).items():
        if point.projection is None:
            continue
        folder = finished / "artifacts" / "experiments" / name / "model"
        adapter = adapter_file.load(folder)
        if point.projection.key is not None:
            assert [block.key for block in adapter.blocks] == [point.projection.key]
            module = next(iter(adapter.modules))
            key = (point.lori.seed, point.training.learning_rate)
            shared.setdefault(key, []).append(adapter.A(module))
            continue
        avoiding += 1
        assert adapter.stored is not None
        facts = adapter.info["depends"]["avoid"]
        assert (facts["tasks"], facts["examples"]) == (list(point.projection.avoid), 4)
        for module in adapter.modules:
            square = adapter.A(module) @ adapter.A(module).T
            unit = square.diagonal().mean() * torch.eye(len(square))
            assert torch.allclose(square, unit, atol=1e-4)
    assert avoiding == 2 * 3  # two tasks, two rates and the chosen one
    assert shared
    for same in shared.values():
        assert all(torch.equal(same[0], other) for other in same)


@pytest.mark.real
def test_the_excess_of_each_task_is_measured_on_the_same_examples(finished: Path) -> None:
    losses = [row for row in rows_of(finished, "projections") if row["metric"] == "loss"]
    assert len(losses) == 3 * 2 * 2  # ways, tasks, alone and merged
    for task in ("math", "safety"):
        sets = {row["item_set"] for row in losses if row["task"] == task}
        assert len(sets) == 1
    cosines = [r for r in rows_of(finished, "projections") if r["metric"] == "mean_abs_cosine"]
    assert {row["projection"] for row in cosines} == {"own", "shared", "null-space"}


@pytest.mark.real
@pytest.mark.parametrize("name", ["frozen-a", "projections", "random-masks"])
def test_every_condition_shows_the_same_rates_with_their_losses(finished: Path, name: str) -> None:
    rates = [row for row in rows_of(finished, name) if row["metric"] == "learning_rate"]
    assert rates
    for row in rates:
        assert list(row["tried"]) == ["0.001", "0.01"]
        assert row["tried"][f"{row['value']:g}"] == min(row["tried"].values())


@pytest.mark.real
def test_conditions_of_equal_size_train_about_as_many_values(finished: Path) -> None:
    counts = {
        row["mask"]: row["value"]
        for row in rows_of(finished, "random-masks")
        if row["metric"] == "trainable_parameters"
    }
    assert counts["magnitude"] == counts["random"]
    assert counts["none"] > 9 * counts["random"]
