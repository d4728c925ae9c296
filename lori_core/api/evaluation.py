"""Score an adapter, or its base model, on test sets."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.api.adapters import paths_of
from lori_core.core.errors import InputError, unknown

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.adapters.base_choice import Base
    from lori_core.config import Params
    from lori_core.data.example import Example, Split
    from lori_core.methods.finetuned_model import FinetunedModel

#: Required sections of a parameter file that an evaluation does not use.
PLACEHOLDERS: dict[str, Any] = {
    "lori": {},
    "training": {"learning_rate": 1e-3},
    "tasks": {"none": {"source": "bundled-math", "calibration": {}, "training": {}}},
}


@dataclass(frozen=True)
class Score:
    """The score of a model on one test set.

    Attributes:
        metric: the name of the metric: `accuracy`, `exact_match`, `pass_at_1`, `refusal_rate`, …
        value: the value of the metric, in [0, 1]; None if no example counts.
        low: the lower end of the 95 % confidence interval of `value`; None if there is none.
        high: the upper end of the interval; None if there is none.
        n: the number of examples that count.
        details: all measurements, as in `results.json` of `lori evaluate`: by kind of example, by
            other protocols, cut prompts and empty outputs.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    details: Mapping[str, Any] = field(repr=False, default_factory=dict)


def evaluate(
    adapter: Adapter | FinetunedModel | str | PathLike[str] | None,
    *,
    tasks: Sequence[str] | Mapping[str, Sequence[Example]],
    base: str | None = None,
    params: Params | None = None,
    workspace: str | PathLike[str] | None = None,
    split: Split = "test",
    limit: int | None = None,
    out: str | PathLike[str] | None = None,
) -> dict[str, Score]:
    """Score an adapter, or its base model alone, on test sets.

    Each call loads the base model. Progress goes to standard error.

    Args:
        adapter: the adapter, in memory or by path; None for the base model alone.
        tasks: names of sources (`lori sources`) or of tasks with data in `workspace`; or your own
            examples, by the name of their set.
        base: the base model: a folder, `pypi:…` or `OWNER/NAME@COMMIT`; by default that of the
            adapter or of `params`.
        params: gives `model`, `prompt` and `evaluation`, by default their defaults, and the tasks
            that pulled data must be of.
        workspace: a folder in which `train`, or the pipeline, has written `data/`.
        split: the split of a named task.
        limit: the most examples of each set; None for all, of a bundled set for 100 (test).
        out: a folder for every prompt, output and verdict as JSON lines; by default nothing is
            saved.

    Returns:
        The score of each set that has a scorer, by its name.

    Raises:
        InputError: a task does not exist, was pulled with other settings than those of `params`, or
            has no answers to judge; or no base model is named or it cannot be used.
        AdapterError: the adapter has, or may have, another base model.
    """
    from lori_core.adapters import attach, output_folder
    from lori_core.adapters.adapter import Adapter
    from lori_core.evaluation.evaluate import evaluate as score
    from lori_core.methods.finetuned_model import open_model
    from lori_core.methods.loaded_model import load_model

    _check_limit(limit)
    # Copies of base weights are compared with the base by `_for_base`.
    opened = (
        open_model(Path(adapter), copies=True) if isinstance(adapter, str | PathLike) else adapter
    )
    params, chosen = _with_base(params, opened, base)
    sets = _sets(tasks, params, workspace, split, limit)
    with contextlib.ExitStack() as stack:
        inputs = [chosen.folder, *paths_of([adapter])]
        if out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            output_folder.check(Path(out), output_folder.EVALUATION, inputs)
            claim = output_folder.claim(Path(out), output_folder.EVALUATION, inputs)
            folder = stack.enter_context(claim)
        loaded = load_model(params, training=False)
        fitted = _for_base(opened, chosen)
        if isinstance(fitted, Adapter):
            attach.check(loaded.model, fitted, "adapter")
        results = score(loaded, fitted, sets, "model", folder)
        if out is not None:
            _write_results(folder, results)
    return {name: _score(result) for name, result in results.items()}


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"limit: {limit}; at least 1")


def _with_base(
    params: Params | None, adapter: Adapter | FinetunedModel | None, base: str | None
) -> tuple[Params, Base]:
    """Return the parameters with the base model to load, and that model."""
    from lori_core import config
    from lori_core.adapters import base_choice

    own = None if params is None else params.model
    if adapter is not None or base is not None:
        # `chosen` reads only the adapter's base, which both classes have.
        named: Any = {} if adapter is None else {"adapter": adapter}
        chosen = base_choice.choose(base, named, own)
    elif own is not None:
        chosen = base_choice.prepare(own)
    else:
        raise InputError("no adapter, base or params: which model shall be evaluated?")
    values = PLACEHOLDERS if params is None else params.model_dump()
    return config.parse(values | {"model": chosen.section.model_dump()}, "params"), chosen


def _for_base(
    adapter: Adapter | FinetunedModel | None, base: Base
) -> Adapter | FinetunedModel | None:
    """Return an adapter with the identity of the base that is loaded."""
    from lori_core.adapters.adapter import Adapter

    return base.of({"adapter": adapter})["adapter"] if isinstance(adapter, Adapter) else adapter


def _sets(
    tasks: Sequence[str] | Mapping[str, Sequence[Example]],
    params: Params,
    workspace: str | PathLike[str] | None,
    split: Split,
    limit: int | None,
) -> dict[str, list[Example]]:
    """Return the examples of each set.

    Raises:
        InputError: there is no set, a task does not exist, or a set has no answers to judge.
    """
    if isinstance(tasks, str) or not tasks:
        raise InputError(f"tasks: {tasks!r}; give a list of names, or examples by name")
    if isinstance(tasks, Mapping):
        sets = {name: list(examples)[:limit] for name, examples in tasks.items()}
    else:
        data = None if workspace is None else Path(workspace) / "data"
        sets = {name: examples_of(name, split, limit, params, data, "tasks") for name in tasks}
    for name, examples in sets.items():
        if all(example.scorer == "none" for example in examples):
            raise InputError(f"tasks: {name}: its {split} examples have no answer to judge")
    return sets


def examples_of(
    name: str, split: Split, limit: int | None, params: Params, data: Path | None, where: str
) -> list[Example]:
    """Return the examples of a task with pulled data, or of a ready-made source.

    Args:
        name: the task, or the source (`lori sources`).
        split: which examples.
        limit: at most so many; all if None.
        params: whose tasks the pulled data must be of; its `lori.seed` shuffles a source before it
            is cut.
        data: the folder of pulled data, if there is one.
        where: what an error begins with, as `tasks`.

    Raises:
        InputError: there is no such task or source, or the task's data was pulled with other
            settings than those of `params`.
    """
    from lori_core.data import pulled
    from lori_core.data.sources import catalogue, pulling

    if data is not None and (data / name / f"{split}.jsonl").is_file():
        pulling.check_pulled(params, name, data, where)
        return pulled.read_examples(name, split, data)[:limit]
    sources = catalogue.named()
    if name in sources:
        return pulling.read_source(name, split, limit, params.lori.seed)
    local = set() if data is None else {p.parent.name for p in data.glob(f"*/{split}.jsonl")}
    raise InputError(f"{where}: {unknown('task', name, local | set(sources))}")


def _write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json` as `lori evaluate` does; it marks the folder as an evaluation."""
    from lori_core.core.files.atomic import write_json

    write_json(folder / "results.json", {"scores": {"model": results}, "seconds": {}})


def _score(result: Mapping[str, Any]) -> Score:
    return Score(
        metric=str(result["metric"]),
        value=result["score"],
        low=result["low"],
        high=result["high"],
        n=int(result["n"]),
        details=result,
    )
