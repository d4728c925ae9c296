"""When stages would run, and what of them is in DVC's cache."""

from __future__ import annotations

from pathlib import Path

from flows.execution.stage_process import reproduce
from flows.planning.schedule import simulate
from flows.versioning import graph
from flows.versioning.graph import Stage


def stage(name: str, *above: str, gpus: int = 1) -> Stage:
    return Stage(name, above, gpus, "", ())


def test_the_critical_path_is_what_the_end_waits_for() -> None:
    stages = [stage("a"), stage("b"), stage("c", "a"), stage("d", "b", "c", gpus=0)]
    seconds = {"a": 10.0, "b": 5.0, "c": 7.0, "d": 1.0}
    two = simulate(stages, seconds, 2)
    assert (two.seconds, two.critical) == (18.0, ("a", "c", "d"))
    one = simulate(stages, seconds, 1)
    assert (one.seconds, one.critical) == (23.0, ("a", "b", "c", "d"))
    assert one.begins == {"a": 0.0, "b": 10.0, "c": 15.0, "d": 22.0}


def test_sixteen_stages_keep_four_gpus_busy() -> None:
    stages = [stage(f"s{number:02}") for number in range(16)]
    made = simulate(stages, dict.fromkeys((s.name for s in stages), 3.0), 4)
    assert made.seconds == 12.0
    busy = sum(made.ends[name] - made.begins[name] for name in made.ends)
    assert busy == 4 * made.seconds


def test_a_stage_of_several_gpus_waits_until_so_many_are_free() -> None:
    stages = [stage("a"), stage("b", gpus=2), stage("c", gpus=8)]
    made = simulate(stages, {"a": 3.0, "b": 2.0, "c": 1.0}, 2)
    assert made.begins == {"a": 0.0, "b": 3.0, "c": 5.0}


def test_stages_outside_the_plan_hold_nobody_up() -> None:
    assert simulate([stage("b", "gone")], {"b": 2.0}, 1).begins == {"b": 0.0}
    assert simulate([], {}, 4).seconds == 0.0


def test_what_ran_before_is_found_in_the_run_cache(toy: Path) -> None:
    everything = ["prepare", "train@math", "train@nlu", "report"]
    assert [reproduce(name) for name in everything] == [0] * 4
    before = (toy / "params.yaml").read_text()
    changed = before.replace(
        "math: {training: {learning_rate: 0.1", "math: {training: {learning_rate: 9"
    )
    # Planning with other parameters does not write them.
    plan = graph.plan(toy, params=changed)
    assert set(plan.stale) == {"train@math", "report"}
    assert graph.cached(toy, plan, params=changed) == set()
    assert (toy / "params.yaml").read_text() == before
    # And back: what the first parameters made is still there.
    (toy / "params.yaml").write_text(changed)
    assert [reproduce(name) for name in everything] == [0] * 4
    again = graph.plan(toy, params=before)
    assert set(again.stale) == {"train@math", "report"}
    assert "train@math" in graph.cached(toy, again, params=before)
