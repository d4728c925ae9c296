"""Forecast the excess loss of merging adapters by path, on validation examples of their tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import DataError

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter


def forecast(
    adapters: Mapping[str, Adapter],
    weights: Sequence[float],
    count: int,
    *,
    tasks: str | None = None,
    base: str | None = None,
) -> dict[str, Any]:
    """Return the forecast of each task's excess loss, as JSON values.

    Args:
        adapters: the adapters by name, at least two.
        weights: the weight of each adapter in the merge.
        count: the most validation examples of each task.
        tasks: the tasks' names, with commas; None for the tasks that the adapters record.
        base: the base model, for adapters that only name theirs, or name none.

    Returns:
        `weights` by task; `tasks`: the fields of `TaskForecast` by task, and `measured`;
        `shares`: by merge method, the mean over tasks of the forecast share of the gain that is
        lost; `recommended`: the method with the least.

    Raises:
        InputError: tasks do not fit the adapters, or a loss is not finite.
        DataError: a task has no validation example with a target, or one that is too long.
        ModelError: the base model cannot be used.
        AdapterError: the adapters have, or may have, different base models.
    """
    from lori_core.api.loaded_tasks import load_tasks
    from lori_core.data.prompts import encode_all
    from lori_core.evaluation.held_out import training_length
    from lori_core.evaluation.preflight import excess_forecast
    from lori_core.methods import limits

    loaded = load_tasks(adapters, tasks, base, "lori interference --examples")
    session, params = loaded.session, loaded.session.params
    rows = {}
    for task, some in loaded.examples.items():
        with_target = [example for example in some if example.target][:count]
        if not with_target:
            raise DataError(f"--examples: {task} has no validation example with a target")
        length = training_length(params, task)
        rows[task] = encode_all(with_target, params.prompt, session.tokenizer, length)
    name = params.model.name_or_path
    limits.check_rows(rows, session.model, session.tokenizer, name)
    by_task = dict(zip(loaded.adapters, weights, strict=True))
    pad = session.tokenizer.pad_token_id or 0
    found = excess_forecast.forecast(session.model, loaded.adapters, by_task, rows, pad)
    return {"weights": by_task} | excess_forecast.as_dict(found)
