"""Load the base model of adapters named by path, and the validation examples of their tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import InputError, shown

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.config import Params
    from lori_core.methods.loaded_model import LoadedModel


@dataclass(frozen=True)
class LoadedTasks:
    """A loaded base model with the adapters of some tasks.

    Attributes:
        session: the loaded base model.
        adapters: the adapters by task, in the order in which they were named.
        examples: by task, its validation examples.
    """

    session: LoadedModel
    adapters: dict[str, Adapter]
    examples: dict[str, list[Any]]


def load_tasks(
    adapters: Mapping[str, Adapter], tasks: str | None, base: str | None, what: str
) -> LoadedTasks:
    """Load the base model of adapters, and their tasks' validation examples.

    In a folder with a `params.yaml`, its settings are used, its model only if it is the adapters'.

    Args:
        adapters: the adapters by name.
        tasks: the tasks' names, with commas; None for the tasks that the adapters record.
        base: the base model, for adapters that only name theirs, or name none.
        what: the command's name in messages.

    Raises:
        InputError: tasks do not fit the adapters, or a task or source does not exist.
        DataError: a task has no validation examples.
        AdapterError: the adapters have, or may have, different base models.
    """
    from lori_core import config
    from lori_core.adapters import base_choice
    from lori_core.adapters.attach import check as check_fit
    from lori_core.api.evaluation import PLACEHOLDERS
    from lori_core.methods.loaded_model import load_model
    from lori_core.pipeline import params_file

    names = _tasks(tasks, adapters)
    values = dict(PLACEHOLDERS)
    if params_file.PARAMS.is_file():
        values = params_file.load().model_dump()
    model = values.get("model")
    own = None if model is None else config.ModelSection.model_validate(model)
    chosen = base_choice.choose(base, dict(adapters), own)
    values["model"] = chosen.section.model_dump()
    params = config.parse(values, what)
    by_task = dict(zip(names, chosen.of(dict(adapters)).values(), strict=True))
    examples = {task: _examples(task, params) for task in names}
    session = load_model(params, training=False)
    for task, adapter in by_task.items():
        check_fit(session.model, adapter, task)
    return LoadedTasks(session, by_task, examples)


def _tasks(given: str | None, adapters: Mapping[str, Adapter]) -> list[str]:
    """Return the task of each adapter."""
    if given is not None:
        tasks = given.split(",")
    else:
        tasks = [str(adapter.info.get("task") or "") for adapter in adapters.values()]
        for name, task in zip(adapters, tasks, strict=True):
            if not task:
                raise InputError(f"--tasks: {name} records no task; name the task of each adapter")
    if len(tasks) != len(adapters):
        raise InputError(
            f"--tasks: {len(tasks)} tasks for {len(adapters)} adapters ({', '.join(adapters)}); "
            "name one task for each adapter"
        )
    if len(set(tasks)) < len(tasks) or not all(tasks):
        raise InputError(f"--tasks: {shown(','.join(tasks))}; each adapter needs a task of its own")
    return tasks


def _examples(task: str, params: Params) -> list[Any]:
    """Return a task's validation examples."""
    from lori_core.api.evaluation import examples_of
    from lori_core.data import pulled

    return examples_of(task, "validation", None, params, pulled.DATA, "--tasks")
