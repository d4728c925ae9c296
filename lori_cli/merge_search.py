"""`lori merge --search`: search the weights of a merge on validation examples."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import InputError, shown

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.evaluation.search.search import SearchResult
    from lori_core.merging.merge_methods import Options
    from lori_core.pipeline.merging import Parents


def add_options(merge: Any) -> None:
    """Add the options of the search to the parser of `lori merge`."""
    merge.add_argument(
        "--search",
        action="store_true",
        help="search the weights, from --weights on, on the tasks' validation examples; loads the "
        "base model; the rules of the gate in params.yaml, if there is one here, are constraints",
    )
    merge.add_argument(
        "--search-by",
        choices=["task", "layer", "projection"],
        help="one weight for each adapter (the default), for each adapter and layer, or for each "
        "adapter, layer and projection",
    )
    merge.add_argument(
        "--tasks",
        help="with --search: the task of each adapter, and of the safety adapter last; a task with "
        "pulled data or a name from lori sources (default: the tasks that the adapters record)",
    )


def check(args: argparse.Namespace) -> None:
    """Refuse options of the search without `--search`, and settings that do not fit the method.

    Raises:
        InputError: names the option.
    """
    from lori_core.config import MergeSection

    for option in ("search_by", "tasks"):
        if getattr(args, option) is not None and not args.search:
            raise InputError(f"--{option.replace('_', '-')}: only with --search")
    if not args.search:
        return
    from pydantic import ValidationError

    from lori_core.config.validation import first_error

    section = {
        "method": args.method,
        "stage": "train" if args.safety is None else "continual",
        "search": {"by": args.search_by or "task"},
        **({} if args.density is None else {"density": args.density}),
    }
    try:
        MergeSection.model_validate(section)
    except ValidationError as error:
        raise InputError(f"--search: {first_error(error, MergeSection)}") from None


def search(
    args: argparse.Namespace,
    adapters: Mapping[str, Adapter],
    weights: list[float],
    options: Options,
) -> tuple[Parents, SearchResult]:
    """Search the weights; return the merge's inputs and the result.

    Args:
        args: the options of `lori merge`.
        adapters: the adapters by name, the safety adapter last if there is one.
        weights: the weights to start from, without one for the safety adapter.
        options: the method's options.

    Raises:
        InputError: tasks do not fit the adapters, or a loss is not finite.
        DataError: a task has no validation examples.
        AdapterError: the adapters have, or may have, different base models.
    """
    from lori_core import config
    from lori_core.adapters import base_choice
    from lori_core.adapters.attach import check as check_fit
    from lori_core.api.evaluation import PLACEHOLDERS
    from lori_core.evaluation.search.candidates import Measures
    from lori_core.evaluation.search.search import search as search_weights
    from lori_core.methods.loaded_model import load_model
    from lori_core.pipeline import params_file
    from lori_core.pipeline.merging import Parents

    tasks = _tasks(args, adapters)
    values = dict(PLACEHOLDERS)
    if params_file.PARAMS.is_file():
        values = params_file.load().model_dump()
    model = values.get("model")
    own = None if model is None else config.ModelSection.model_validate(model)
    base = base_choice.choose(args.base, dict(adapters), own)
    values["model"] = base.section.model_dump()
    params = config.parse(values, "lori merge --search")
    by_task = dict(zip(tasks, base.of(dict(adapters)).values(), strict=True))
    examples = {task: _examples(task, params.lori.seed) for task in tasks}
    session = load_model(params, training=False)
    for task, adapter in by_task.items():
        check_fit(session.model, adapter, task)
    parents = dict(by_task)
    safety = None if args.safety is None else parents.popitem()
    merge = Parents(args.method, parents, options, safety)
    settings = config.SearchSection(by=args.search_by or "task")
    safety_task = params.continual.safety_task if safety is None else safety[0]
    measures = Measures(
        session, by_task, examples, settings.examples, {}, params.gate.rules, safety_task
    )
    first = dict(zip(parents, weights, strict=True))
    result = search_weights(merge, first, settings, measures, lambda *_: None, print)
    print(result.sentence)
    return merge, result


def _tasks(args: argparse.Namespace, adapters: Mapping[str, Adapter]) -> list[str]:
    """Return the task of each adapter."""
    if args.tasks is not None:
        tasks = str(args.tasks).split(",")
    else:
        tasks = [str(adapter.info.get("task") or "") for adapter in adapters.values()]
        for name, task in zip(adapters, tasks, strict=True):
            if not task:
                raise InputError(f"--tasks: {name} records no task; name the task of each adapter")
    if len(tasks) != len(adapters):
        raise InputError(
            f"--tasks: {len(tasks)} tasks for {len(adapters)} adapters ({', '.join(adapters)}); "
            "name one each"
        )
    if len(set(tasks)) < len(tasks) or not all(tasks):
        raise InputError(f"--tasks: {shown(','.join(tasks))}; each adapter needs a task of its own")
    return tasks


def _examples(task: str, seed: int) -> list[Any]:
    """Return a task's validation examples."""
    from lori_core.api.evaluation import examples_of
    from lori_core.data import pulled

    return examples_of(task, "validation", None, seed, pulled.DATA, "--tasks")
