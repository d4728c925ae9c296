"""Restrictions on lm-evaluation-harness: no output, no processes, no code from the hub."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from lori_core.core.progress import bar

#: Values of `dataset_path` for local data files: loaders of `datasets` that run no code.
FILE_FORMATS = ("arrow", "csv", "json", "parquet", "text")


class NoDataError(Exception):
    """A data set cannot be read."""


class HubCodeError(BaseException):
    """A metric needs code from the hub. No `Exception`, which the harness would only log."""


class Notes(logging.Handler):
    """A log handler that collects the harness's warnings: one message of each kind, and a count.

    Attributes:
        seen: by line of code (path and number) the first message and the number of messages.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: dict[tuple[str, int], tuple[str, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Count a message; messages from the same line of code are of one kind."""
        kind = record.pathname, record.lineno
        text, count = self.seen.get(kind, (" ".join(record.getMessage().split()), 0))
        self.seen[kind] = text, count + 1

    def texts(self) -> tuple[str, ...]:
        """Return one text for each kind."""
        return tuple(
            text if count == 1 else f"{text} ({count} times)" for text, count in self.seen.values()
        )


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def contained(folder: Path) -> Iterator[Notes]:
    """Keep the harness from printing, forking, counting downloads and running code from the hub.

    Args:
        folder: the folder for relative paths of data files.

    Yields:
        The harness's warnings.

    Raises:
        NoDataError: raised inside, if a data set cannot be read.
        HubCodeError: raised inside, if a metric's code would be downloaded and run.
    """
    notes = Notes()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        import datasets
        import evaluate
        import lm_eval.api.metrics
        import lm_eval.api.model
        import lm_eval.api.task
        import lm_eval.models.huggingface

        log = logging.getLogger("lm_eval")
        log.addHandler(notes)
        stack.callback(log.removeHandler, notes)
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.WARNING)
        for owner, name, value in (
            (log, "propagate", False),
            (datasets, "load_dataset", _from_folder(datasets.load_dataset, folder)),
            (datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
            (evaluate, "load", _refuse_metric),
            (lm_eval.api.metrics, "bootstrap_stderr", _bootstrap),
            (lm_eval.api.model, "tqdm", _bar),
            (lm_eval.api.task, "tqdm", _bar),
            (lm_eval.models.huggingface, "tqdm", _bar),
        ):
            stack.enter_context(_replaced(owner, name, value))
        if not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        stack.enter_context(_own_random_numbers())
        stack.enter_context(redirect_stdout(sys.stderr))
        yield notes


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Restore the state of all random generators afterwards, because the harness seeds them."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _bar(rows: Iterable[Any] | None = None, *, total: int = 0, desc: str = "", **_: Any) -> Any:
    return bar(total, desc, "request") if rows is None else rows


def _bootstrap(metric: Callable[[Any], float], values: Sequence[Any], iters: int) -> float:
    """Return the bootstrap standard error, without the harness's processes for each core."""
    import numpy as np

    draw = random.Random(0)  # noqa: S311
    resampled = [metric(draw.choices(values, k=len(values))) for _ in range(iters)]
    return float(np.std(resampled, ddof=1))


def _refuse_metric(name: str, *_: Any, **__: Any) -> Any:
    raise HubCodeError(name)


def _from_folder(load: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """Return `load` with paths of local data files relative to the folder of the task files."""

    def load_dataset(path: str, *args: Any, **options: Any) -> Any:
        local = path in FILE_FORMATS
        if local and "data_files" in options:
            options["data_files"] = _located(options["data_files"], folder)
        try:
            return load(path, *args, **options)
        except Exception as error:
            if local:
                place = f"(data_files: {options.get('data_files')})"
                raise NoDataError(f"{first_line(error)} {place}") from error
            raise NoDataError(
                f"the data set {path} is not on this machine: {first_line(error)}; fetch it where "
                "the hub can be reached (HF_HUB_OFFLINE unset), or give the folder of a task file "
                "on local data: --include-path FOLDER"
            ) from error

    return load_dataset


def _located(files: Any, folder: Path) -> Any:
    if isinstance(files, Mapping):
        return {split: _located(inner, folder) for split, inner in files.items()}
    if isinstance(files, list):
        return [_located(inner, folder) for inner in files]
    path = os.path.expandvars(str(files))
    if "$" in path:
        raise NoDataError(f"data_files: {files}: this environment variable is not set")
    return path if "://" in path else str(folder / path)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
