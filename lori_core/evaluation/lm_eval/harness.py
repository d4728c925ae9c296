"""Tasks of lm-evaluation-harness on a loaded model, with or without an adapter.

Prompts, few-shot examples, filters, metrics and standard errors are the harness's own, so the
numbers are comparable with published ones; the intervals are ours.
"""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lori_core.core.errors import DataError, InputError
from lori_core.core.files import yaml_input
from lori_core.data.chat import on_one_day
from lori_core.data.prompts import added_ids
from lori_core.evaluation.inference.generation import contiguous_head
from lori_core.evaluation.lm_eval.harness_guard import (
    HubCodeError,
    NoDataError,
    contained,
    first_line,
)
from lori_core.evaluation.lm_eval.harness_results import HarnessResult, task_results

#: Bootstrap resamples for the standard error of a metric that is not a mean (F1, BLEU, …).
RESAMPLES = 1000


def run(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    apply_chat_template: bool = False,
) -> HarnessResult:
    """Score a model on tasks, groups or tags of lm-evaluation-harness.

    The values are those of `lm_eval --model hf` with the same seeds and batch size, except that no
    end-of-sequence token is appended to questions. The harness decodes with the base model's
    `generation_config.json`, unlike the rest of this package. No code from the hub is run and no
    downloads are counted there; data sets are read from the local cache or, unless
    `HF_HUB_OFFLINE` is set, downloaded. Task files may name Python functions in files next to
    them, which are run: include only a folder that you trust.

    Args:
        model: a causal LM on its device, with or without an adapter; unchanged afterwards, except
            that it is in evaluation mode.
        tokenizer: its tokenizer.
        tasks: names in the harness's registry or in `include_path`.
        include_path: a folder with further task files (`*.yaml`), which take precedence over the
            harness's. For a `dataset_path` of `FILE_FORMATS`, paths in `data_files` are relative
            to this folder and may contain `$VARIABLES`.
        limit: the number of examples of each task; None for all.
        batch_size: requests in a batch.
        seed: the seed of few-shot examples and of sampling.
        apply_chat_template: whether to render prompts with the tokenizer's chat template, with the
            fixed date of `data.chat.on_one_day`.

    Raises:
        InputError: lm-eval is not installed; an argument is out of range; a task is unknown, cannot
            be loaded, runs generated code, or needs code from the hub.
        DataError: a task's data is not on this machine, or cannot be read.
    """
    _check(tokenizer, tasks, include_path, limit, batch_size, apply_chat_template)
    folder = (include_path or Path()).resolve()
    with contained(folder) as notes:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        names = list(dict.fromkeys(tasks))
        manager = _task_manager(names, folder if include_path else None)
        loaded = _load(manager, names)
        adjusted = _without_suffix(tokenizer)
        if apply_chat_template:
            adjusted = _with_fixed_date(adjusted)
        wrapped = HFLM(pretrained=model, tokenizer=adjusted, batch_size=batch_size)
        notes.seen.clear()
        with contiguous_head(model), _naming(", ".join(names)):
            output = simple_evaluate(
                wrapped,
                tasks=loaded,
                task_manager=manager,
                limit=limit,
                apply_chat_template=apply_chat_template,
                bootstrap_iters=RESAMPLES,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    return HarnessResult(version("lm_eval"), task_results(output), notes.texts())


def _without_suffix(tokenizer: Any) -> Any:
    """Return the tokenizer, or a copy of it that appends no special token to a text.

    lm-eval would treat an appended end-of-sequence token as a part of each question.

    Raises:
        InputError: the tokenizer appends a token and is not a fast tokenizer.
    """
    front, back = added_ids(tokenizer)
    if not back:
        return tokenizer
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise InputError(
            f"harness: the tokenizer appends {tokenizer.decode(back)!r} to every text, which "
            "lm-eval would treat as a part of the text; use a fast tokenizer (tokenizer.json)"
        )
    from tokenizers.processors import TemplateProcessing

    names = tokenizer.convert_ids_to_tokens(front)
    single = " ".join([*names, "$A"])
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=list(zip(names, front, strict=True))
    )
    return other


def _with_fixed_date(tokenizer: Any) -> Any:
    """Return the tokenizer, or a copy of it whose chat template uses a fixed date."""
    template = tokenizer.get_chat_template()
    if on_one_day(template) == template:
        return tokenizer
    other = copy.deepcopy(tokenizer)
    other.chat_template = on_one_day(template)
    return other


def _check(
    tokenizer: Any,
    tasks: Sequence[str],
    folder: Path | None,
    limit: int | None,
    batch_size: int,
    chat: bool,
) -> None:
    if find_spec("lm_eval") is None:
        raise InputError("harness: lm-eval is not installed (pip install 'lori[harness]')")
    if isinstance(tasks, str) or not tasks:
        raise InputError(f"tasks: expected the names of one or more tasks, got {tasks!r}")
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name}: expected a whole number, at least 1, got {value!r}")
    if chat and not tokenizer.chat_template:
        raise InputError("apply_chat_template: this model's tokenizer has no chat template")
    if folder is not None:
        _check_task_files(folder)


def _check_task_files(folder: Path) -> None:
    """Refuse a folder without task files or with a broken one, which the harness would skip."""
    files = sorted(folder.rglob("*.yaml"))
    if not files:
        raise InputError(f"include_path: {folder}: no such folder, or no task file (*.yaml) in it")
    for file in files:
        text = yaml_input.read_text(file, error=InputError)
        try:
            yaml_input.loads(text, lambda _: None, tags=("!function",))
        except yaml_input.YAMLFaultError as error:
            raise InputError(f"{error.at(str(file))}: {error}") from None


@cache
def _registry() -> Mapping[str, Any]:
    """Return the harness's own tasks; reading their 15,000 files takes about 10 s."""
    from lm_eval.tasks import TaskManager

    print("reading lm-eval's list of tasks, about 10 s", file=sys.stderr, flush=True)
    index: dict[str, Any] = TaskManager().task_index
    return index


def _task_manager(names: Sequence[str], folder: Path | None) -> Any:
    """Return a task manager with the named tasks; the harness's own are only read if needed."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folder, include_defaults=False)
    index: dict[str, Any] = manager.task_index
    own = sorted(index)
    if any(name not in index or "group" in (index[name].cfg or {}) for name in names):
        for name, entry in _registry().items():
            index.setdefault(name, entry)
    for name in names:
        if name not in index:
            raise InputError(_unknown(name, index, own))
    return manager


def _unknown(name: str, known: Collection[str], own: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    listed = [*own[:10], "…"] if len(own) > 10 else own
    return "".join(
        (
            f"harness task {name!r} is unknown",
            f"; nearest: {', '.join(close)}" if close else "",
            f" (in --include-path: {', '.join(listed)})" if own else " (own tasks: --include-path)",
        )
    )


def _load(manager: Any, names: Sequence[str]) -> list[Any]:
    """Load the tasks and groups of these names, with their data."""
    items: list[Any] = []
    requested_by: dict[str, str] = {}
    for name in names:
        try:
            with _naming(name):
                loaded = manager.load([name])
        except InputError:
            raise
        except ImportError as error:
            message = f"{first_line(error)} (pip install what it needs)"
            raise InputError(f"harness task {name}: {message}") from error
        except Exception as error:  # a task file may run code, which may raise anything
            message = f"cannot be loaded: {type(error).__name__}: {first_line(error)}"
            raise InputError(f"harness task {name}: {message}") from error
        for task in loaded["tasks"]:
            if requested_by.setdefault(task, name) != name:
                raise InputError(
                    f"tasks: {task} is named twice, by {requested_by[task]} and {name}"
                )
        _refuse_unsupported(name, loaded["tasks"].values())
        group = loaded["groups"].get(name)
        items += [group] if group else loaded["tasks"].values()
    return items


def _refuse_unsupported(name: str, tasks: Iterable[Any]) -> None:
    for task in tasks:
        if getattr(task, "UNSAFE_CODE", False):
            raise InputError(_runs_code(name))
        if getattr(task, "MULTIMODAL", False):
            raise InputError(f"harness task {name}: it needs a model that sees or hears")


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Convert the errors of `contained` to errors that name the task."""
    try:
        yield
    except NoDataError as error:
        raise DataError(f"harness task {name}: {error}") from error
    except HubCodeError as error:
        if str(error) == "code_eval":
            raise InputError(_runs_code(name)) from None
        raise InputError(
            f"harness task {name}: its metric {str(error)!r} is code from the hub, which is "
            "never run"
        ) from None


def _runs_code(name: str) -> str:
    return (
        f"harness task {name}: it runs code that the model writes, and lm-eval has no sandbox for "
        "that; for HumanEval use lori evaluate without --harness, which has one"
    )
