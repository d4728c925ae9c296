"""Search the weights of a merge of adapters by path, on validation examples of their tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lori_core.core.errors import InputError

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.evaluation.search.search import SearchResult
    from lori_core.merging.learned.weight_groups import By
    from lori_core.merging.merge_methods import Options
    from lori_core.pipeline.merging import Parents


def check(method: str, by: By, density: float | None, onto_safety: bool) -> None:
    """Refuse settings of a search that do not fit the merge method.

    Raises:
        InputError: the message begins with `--search`.
    """
    from pydantic import ValidationError

    from lori_core.config import MergeSection
    from lori_core.config.validation import first_error

    section = {
        "method": method,
        "stage": "continual" if onto_safety else "train",
        "search": {"by": by},
        **({} if density is None else {"density": density}),
    }
    try:
        MergeSection.model_validate(section)
    except ValidationError as error:
        raise InputError(f"--search: {first_error(error, MergeSection)}") from None


def search(
    method: str,
    adapters: Mapping[str, Adapter],
    weights: list[float],
    options: Options,
    *,
    by: By = "task",
    tasks: str | None = None,
    base: str | None = None,
    onto_last: bool = False,
) -> tuple[Parents, SearchResult]:
    """Search the weights; return the merge's inputs and the result.

    Args:
        method: the merge method.
        adapters: the adapters by name, the safety adapter last if there is one.
        weights: the weights to start from, without one for the safety adapter.
        options: the method's options.
        by: what shares a weight of an adapter.
        tasks: the tasks' names, with commas; None for the tasks that the adapters record.
        base: the base model, for adapters that only name theirs, or name none.
        onto_last: whether the last adapter is the safety adapter that the others start from.

    Raises:
        InputError: tasks do not fit the adapters, or a loss is not finite.
        DataError: a task has no validation examples.
        AdapterError: the adapters have, or may have, different base models.
    """
    from lori_core import config
    from lori_core.api.loaded_tasks import load_tasks
    from lori_core.evaluation.search.candidates import Measures
    from lori_core.evaluation.search.search import search as search_weights
    from lori_core.pipeline.merging import Parents

    loaded = load_tasks(adapters, tasks, base, "lori merge --search")
    session, by_task, params = loaded.session, loaded.adapters, loaded.session.params
    parents = dict(by_task)
    safety = parents.popitem() if onto_last else None
    merge = Parents(method, parents, options, safety)
    settings = config.SearchSection(by=by)
    safety_task = params.continual.safety_task if safety is None else safety[0]
    measures = Measures(
        session, by_task, loaded.examples, settings.examples, {}, params.gate.rules, safety_task
    )
    first = dict(zip(parents, weights, strict=True))
    result = search_weights(merge, first, settings, measures, lambda *_: None, print)
    print(result.sentence)
    return merge, result
