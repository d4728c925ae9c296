"""The stage `search`: search a merge's weights on the tasks' validation examples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lori_core.config import Params, SearchSection
from lori_core.core.files.atomic import write_json
from lori_core.core.tracking import RunTracker
from lori_core.pipeline.base import open_base
from lori_core.pipeline.merging import given_weights, parents_of
from lori_core.pipeline.results import METRICS, adapter_path, weights_path

if TYPE_CHECKING:
    from lori_core.data.example import Example
    from lori_core.evaluation.search.candidates import Candidate, Measures


def search(params: Params, name: str, tracker: RunTracker) -> None:
    """Search the weights of a merge; without `merge.<name>.search`, write a placeholder."""
    settings = params.merge[name].search
    if settings is None:
        write_json(weights_path(name), {"searched": False})
        write_json(METRICS / "search" / f"{name}.json", {"searched": False})
        return
    from lori_core.evaluation.search.search import search as search_weights

    started = time.monotonic()
    parents = parents_of(params, name)
    measures = measures_of(params, name, settings)

    def tell(number: int, candidate: Candidate) -> None:
        tracker.metrics(_row(candidate), step=number)

    first = given_weights(params, name)
    result = search_weights(parents, first, settings, measures, tell, print)
    print(result.sentence)
    result.weights.write(weights_path(name))
    seconds = {"seconds": round(time.monotonic() - started, 1)}
    write_json(METRICS / "search" / f"{name}.json", {"searched": True} | result.as_dict() | seconds)
    tracker.metrics({"chosen": float(result.chosen), **_row(result.candidates[result.chosen])})
    tracker.tags({"lori.search": result.sentence})


def measures_of(params: Params, name: str, settings: SearchSection) -> Measures:
    """Return what measures a merge of the workspace on the tasks' validation examples.

    Raises:
        DataError: a task has no validation example.
    """
    from lori_core.evaluation.search.candidates import Measures
    from lori_core.methods.finetuned_model import open_model

    tasks = params.searched_tasks(name)
    examples = {task: _validation(task) for task in tasks}
    own = {task: open_model(adapter_path(task)) for task in tasks}
    return Measures(
        open_base(params, training=False), own, examples, settings.examples, settings.task_weights,
        params.gate.rules, params.continual.safety_task,
    )  # fmt: skip


def _validation(task: str) -> list[Example]:
    """Return a task's validation examples.

    Raises:
        DataError: there are none.
    """
    from lori_core.core.errors import DataError
    from lori_core.data.pulled import DATA, read_examples

    path = DATA / task / "validation.jsonl"
    if not path.is_file() or not path.stat().st_size:
        raise DataError(
            f"{path}: no validation examples, which the search for merge weights needs; give "
            f"{task} a validation split and run lori pull, or set search to null"
        )
    return read_examples(task, "validation")


def _row(candidate: Candidate) -> dict[str, float]:
    """Return a candidate's numbers as metrics."""
    return {
        "candidate.objective": candidate.objective,
        "candidate.feasible": float(candidate.feasible),
        **{f"candidate.weight.{t}": candidate.weights.mean(t) for t in candidate.weights.weights},
        **{f"candidate.loss.{task}": loss for task, loss in candidate.losses.items()},
        **{f"candidate.retained.{task}": share for task, share in candidate.retained.items()},
        **{
            f"candidate.{rule}": value
            for rule, value in candidate.rules.items()
            if not rule.startswith("retained.")
        },
    }
