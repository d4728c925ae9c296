"""The order in which points run under a time limit, and which of them have to."""

from __future__ import annotations

from studies import catalogue
from studies.points import Collect, Points, Score, Train
from studies.timed.order import FIRST_SEEDS, needed, ordered
from support import smoke_params

NAMES = ("single-task", "granularity")


def experiments(points: Points) -> list[Collect]:
    return [point for point in points.by_name.values() if isinstance(point, Collect)]


def order(points: Points) -> list[str]:
    return ordered(points.by_name, experiments(points))


def test_every_point_is_ordered_after_its_parents() -> None:
    points = catalogue.build(smoke_params(), ["all"])
    names = order(points)
    assert sorted(names) == sorted(n for n, p in points.by_name.items() if p.kind != "collect")
    place = {name: number for number, name in enumerate(names)}
    for name in names:
        assert all(place[parent] < place[name] for parent in points.by_name[name].parents)


def test_the_experiments_come_as_named_and_the_further_seeds_last() -> None:
    seeds = [5, 4, 3, 2, 1]
    points = catalogue.build(smoke_params(seeds=seeds, learning_rates={}), NAMES)
    leaves = [
        (point.what, model.adapters[0])
        for name in order(points)
        if isinstance(point := points.by_name[name], Score)
        for model in point.models.values()
        if model.adapters
    ]
    trained = [points.by_name[adapter] for _, adapter in leaves]
    groups = []
    for point in trained:
        assert isinstance(point, Train)
        own = "granularity" if point.lori.mask_scope != "model" else "single-task"
        first = point.lori.seed in seeds[:FIRST_SEEDS]
        groups.append((first, own, point.lori.seed))
    assert list(dict.fromkeys(groups)) == [
        *((True, name, seed) for name in NAMES for seed in (5, 4, 3)),
        *((False, name, seed) for name in NAMES for seed in (2, 1)),
    ]


def test_the_first_score_needs_one_training_only() -> None:
    params = smoke_params(learning_rates={}, methods=["lora"])
    points = catalogue.build(params, ["single-task"])
    kinds = [points.by_name[name].kind for name in order(points)]
    assert kinds[:3] == ["score", "train", "score"]  # the base model, then LoRA


def test_a_recorded_point_without_files_runs_again_only_for_a_point_that_reads_them() -> None:
    points = catalogue.build(smoke_params(seeds=[1], learning_rates={}), ["granularity"])
    names = order(points)
    everything = set(names)
    assert needed(names, points.by_name, everything, set()) == []
    last = names[-1]
    (trained,) = points.by_name[last].parents
    (dense,) = points.by_name[trained].parents
    recorded = everything - {last}
    assert needed(names, points.by_name, recorded, set()) == [dense, trained, last]
    assert needed(names, points.by_name, recorded, {trained}) == [last]
    assert needed(names, points.by_name, recorded, {dense}) == [trained, last]
    assert needed(names, points.by_name, set(), set()) == names
