"""What becomes of a worker and of the other points after each kind of answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.execution import gpu_slots, sharing
from lori_core.core.errors import LoriError
from lori_core.core.files.atomic import write_json
from studies import catalogue, stages
from studies.points import FACTS, Train, folder_of
from studies.timed import worker as process
from studies.timed.run import TimedRun, _State
from studies.timed.workers import capacity
from support import smoke_params

FINE = {"ended": False, "broken": False, "machine": "a card", "versions": {}, "seconds": 1.0}
FAILED = {"ended": False, "broken": False, "lacks_memory": False, "error": "no", "exit_code": 1}
DIED = FAILED | {"ended": True, "broken": True}


@dataclass(eq=False)
class _Worker:
    """A worker with the answers that it will give."""

    answers: list[tuple[str, dict[str, Any]]]

    def take(self) -> tuple[str, dict[str, Any]]:
        return self.answers.pop(0)


@dataclass
class _Workers:
    """Notes which workers are dropped, and how many are started."""

    alive: list[Any]
    dropped: list[Any] = field(default_factory=list)
    started: int = 0

    def drop(self, worker: Any) -> None:
        self.dropped.append(worker)
        self.alive.remove(worker)

    def start(self) -> None:
        self.started += 1
        self.alive.append(_Worker([]))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TimedRun:
    """Return a run in a workspace with the data and the files of its points."""
    monkeypatch.chdir(tmp_path)
    params = smoke_params(seeds=[1], learning_rates={})
    points = catalogue.build(params, ["granularity"])
    for point in points.by_name.values():
        for path in stages.data_of(point):
            if path != "data":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text("{}\n")
    made = TimedRun(params, points, {}, lambda _: None)
    for name in made.order:
        write_json(folder_of(name) / FACTS, {"rows": {}})
    return made


def taken(run: TimedRun, *answers: dict[str, Any]) -> tuple[_Workers, _State]:
    """Give a run's first points to one worker, and handle its answers."""
    names = list(run.order)
    state = _State(names[len(answers) :], dict.fromkeys(names, ()), set(names))
    workers = _Workers([])
    for name, answer in zip(names, answers, strict=False):
        one = _Worker([(name, answer)])
        workers.alive = [one]
        run._take(one, workers, state)  # type: ignore[arg-type]
    return workers, state


def test_a_process_that_dies_before_any_answered_ends_the_run(run: TimedRun) -> None:
    with pytest.raises(LoriError, match="no"):
        taken(run, DIED)


def test_the_second_process_that_dies_fails_its_point_alone(run: TimedRun) -> None:
    workers, state = taken(run, FINE, DIED, DIED)
    assert list(state.failed) == run.order[1:3]
    assert (len(workers.dropped), workers.started) == (2, 2)
    assert list(run.records.by_name) == run.order[:1]


@pytest.mark.parametrize("answer", [FAILED, FINE])
def test_a_worker_whose_gpu_is_broken_is_replaced(run: TimedRun, answer: dict[str, Any]) -> None:
    workers, state = taken(run, FINE, answer | {"broken": True})
    assert (len(workers.dropped), workers.started) == (1, 1)
    assert list(state.failed) == (run.order[1:2] if "error" in answer else [])


def test_a_worker_whose_point_failed_goes_on(run: TimedRun) -> None:
    workers, state = taken(run, FAILED)
    assert (workers.dropped, workers.started) == ([], 0)
    assert list(state.failed) == run.order[:1]


def test_rows_of_an_earlier_run_are_said_to_be_such(run: TimedRun) -> None:
    said: list[str] = []
    run._say = said.append
    (experiment,) = run.experiments
    run.run(0.0)
    assert not any("earlier run" in line for line in said)
    write_json(experiment.path, {"experiment": "granularity", "info": {}, "rows": []})
    run.run(0.0)
    (line,) = (line for line in said if "earlier run" in line)
    assert line.startswith("metrics/experiments/granularity.json: its rows are of an earlier run")


def test_as_many_run_at_a_time_as_the_largest_training_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only as the tasks' own method does: all weights take many times LoRI's memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu_slots, "allowed_gpus", lambda _: ["0", "1"])
    monkeypatch.setattr(sharing, "this_host", lambda: sharing.Host(64, 0.0, 1e12))
    params = smoke_params(seeds=[1], learning_rates={})
    base = {"name_or_path": "meta-llama/Meta-Llama-3-8B", "dtype": "bfloat16"}
    params = params.model_copy(update={"model": params.model.model_copy(update=base)})
    trained = catalogue.build(params, ["single-task"]).by_name.values()
    by_method = {point.method: point for point in trained if isinstance(point, Train)}
    found = []
    for memory in (100e9, 300e9):
        card = gpu_slots.Card(memory, True)
        monkeypatch.setattr(gpu_slots, "smallest_card", lambda gpus, card=card: card)
        for methods in (("lori-s",), ("lori-s", "full")):
            place = capacity(params, [by_method[method] for method in methods])
            assert place.variables["CUDA_VISIBLE_DEVICES"] == "0"
            found.append(place.workers)
    assert found[0] == found[1] > 1  # all weights do not fit alone
    assert found[2] > found[3] == 1


def test_a_gpu_that_fails_every_call_is_told_with_the_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.chdir(tmp_path)
    write_json(Path("experiments/points.json"), {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, broken)
    answer = process._answer("train-lori-d-math")
    assert answer["broken"] is True
    assert "train-lori-d-math" in answer["error"]
    assert json.dumps(answer)


def test_a_library_s_lack_of_memory_lets_the_point_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "run", lacking)
    answer = process._answer("score-merge")
    assert (answer["lacks_memory"], answer["broken"]) == (True, False)
