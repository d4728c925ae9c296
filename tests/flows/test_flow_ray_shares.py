"""What the engine `ray` reserves for stages that share GPUs; no cluster is needed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.execution import demand
from flows.execution.gpu_slots import Card
from flows.execution.ray.ray_cards import card_of, stages_per_gpu
from flows.execution.ray.ray_engine import TURN, RayEngine
from flows.execution.ray.ray_node import Delivery
from flows.execution.sharing import CARD, Share
from flows.execution.stage_run import Finished, MemoryLacking, PipelineRun
from flows.execution.tasks import worth_retrying
from flows.versioning.graph import Stage


def node(cpus: int, gpus: int, *kinds: str) -> dict[str, Any]:
    resources = {"CPU": float(cpus), **{f"accelerator_type:{kind}": 1.0 for kind in kinds}}
    return {"Alive": True, "Resources": resources | ({"GPU": float(gpus)} if gpus else {})}


NODES = [node(4, 0), node(64, 4, "H100"), node(48, 4, "A100-80G"), node(96, 8, "H100")]


@pytest.fixture
def engine(tmp_path: Path) -> RayEngine:
    text = "execution: {engine: ray, ray_address: 'head:1', gpus: 2}\n"
    (tmp_path / "params.yaml").write_text(text)
    return RayEngine(PipelineRun(tmp_path, "a-run", print))


def stages(count: int) -> list[Stage]:
    return [Stage(f"train@t{number}", (), 1, "", ()) for number in range(count)]


def test_nodes_say_what_their_gpus_are() -> None:
    assert card_of(NODES) == Card(79e9, True)
    assert card_of([*NODES, node(8, 1, "T4")]) == Card(15e9, False)
    assert card_of([*NODES, node(8, 1, "a new one")]) is None
    assert card_of([*NODES, node(8, 1)]) is None
    assert card_of([node(8, 0)]) is None


def test_a_gpu_bears_as_many_stages_as_its_node_has_cores_for_it() -> None:
    assert stages_per_gpu(NODES, "auto") == 12
    assert stages_per_gpu(NODES, 3) == 3
    assert stages_per_gpu([node(1, 2)], "auto") == stages_per_gpu([node(8, 0)], "auto") == 1


def test_a_stage_reserves_its_part_of_a_gpu(
    engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "forecast_apart", lambda _, names, *__: dict.fromkeys(names, 10e9))
    engine.run.shares = engine._shares(NODES, stages(3))
    assert {share.parts for share in engine.run.shares.values()} == {1393}
    one, two, _ = stages(3)
    assert engine.resources(one) == {"num_cpus": 1, "num_gpus": 0.1393}
    engine.run.shares.pop(two.name)
    assert engine.resources(two) == {"num_cpus": 1, "num_gpus": 1}
    engine.turns = True
    assert engine.resources(one) == {"num_cpus": 1, "num_gpus": 0, "resources": {TURN: 1}}


def test_parts_count_against_the_gpus_that_are_allowed(engine: RayEngine) -> None:
    several = stages(7)
    engine.run.shares = {stage.name: Share(CARD // 3) for stage in several[:-1]}
    wanted = {stage.name: stage for stage in several}
    ready = engine._ready(wanted, {}, {}, set())
    assert [stage.name for stage in ready] == [f"train@t{n}" for n in range(6)]
    whole = {"train@t6": SimpleNamespace()}
    assert len(engine._ready(wanted, whole, {}, set())) == 3


class Ended:
    """A task of Ray that has ended."""

    def __init__(self, result: Any) -> None:
        self.wrapped_future = self
        self.state = SimpleNamespace(result=lambda raise_on_failure: result)

    def wait(self) -> None:
        """Return at once."""


def test_a_stage_whose_part_was_too_small_becomes_ready_again(engine: RayEngine) -> None:
    lacking = MemoryLacking("out of memory")
    lacking.shared = True
    assert not worth_retrying(None, None, SimpleNamespace(data=lacking))
    assert worth_retrying(None, None, SimpleNamespace(data=MemoryLacking("out of memory")))
    engine.run.shares = {stage.name: Share(CARD // 3, 5) for stage in stages(2)}
    running: dict[str, Any] = {
        "train@t0": Ended(lacking),
        "train@t1": Ended(Delivery(Finished(True, 1.0))),
    }
    done: dict[str, Any] = {}
    completed: set[str] = set()
    ray = SimpleNamespace(wait=lambda references, timeout: (references, []))
    engine._collect(ray, running, done, completed)
    assert (running, list(done), completed) == ({}, ["train@t1"], {"train@t1"})
    wanted = {stage.name: stage for stage in stages(2)}
    (again,) = engine._ready(wanted, running, done, completed)
    assert again.name == "train@t0"
    assert engine.resources(again)["num_gpus"] == 1
