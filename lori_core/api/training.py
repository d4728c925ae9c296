"""Parameters, and training one task by them in a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core.core.errors import InputError, unknown

if TYPE_CHECKING:
    from lori_core.config import Params

#: The stages of one task, in order.
_STAGES = ("calibrate", "mask", "train")


def load_params(source: str | PathLike[str] | Mapping[str, Any]) -> Params:
    """Read and validate the parameters of a run.

    Args:
        source: the path of a `params.yaml` or of a profile; or its sections as plain values.

    Returns:
        The parameters, immutable, every field with its default filled in.

    Raises:
        ConfigError: a key or value that is not allowed, naming it and what is.
    """
    from lori_core import config
    from lori_core.pipeline import params_file

    if not isinstance(source, Mapping):
        return params_file.load(Path(source))
    return _checked(config.parse(source, "params"))


def train(params: Params, task: str, *, workspace: str | PathLike[str]) -> Path:
    """Train one task's adapter, by the method that its section names, in a folder.

    Runs the pipeline's stages for this task in this process: the data of all tasks are brought in,
    then `calibrate`, `mask` and `train`. Their outputs lie where the pipeline puts them: `data/`,
    `artifacts/<task>/` and `metrics/`. Relative paths in `params` are read from `workspace`, which
    is the current folder of the process during the call; so call it from one thread at a time.

    Args:
        params: the run; see `load_params`.
        task: a key of `params.tasks`.
        workspace: a folder, made if it is missing. What an earlier call wrote is replaced; a run
            that was stopped goes on from its last checkpoint.

    Returns:
        The adapter's folder, absolute, for `load_adapter`, `merge` and `evaluate`.

    Raises:
        InputError: no such task; a folder of the pipeline's own (`lori run` trains there) or one
            with results of something else; parameters or data that cannot be used.
        DivergedError: a loss that is not a finite number.
    """
    from lori_core.core.tracking import NullTracker
    from lori_core.models import base_model
    from lori_core.pipeline import results, running
    from lori_core.pipeline.stages.pull import pull

    if task not in params.tasks:
        raise InputError(unknown("task", task, params.tasks))
    _checked(params)
    _check_one_process(params, task)
    folder = Path(workspace).expanduser().resolve()
    _check_workspace(folder, task)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        pull(params, base_model.prepare(params.model))
        for stage in _STAGES:
            running.run(params, stage, task, NullTracker())
    return folder / results.adapter_path(task)


def _checked(params: Params) -> Params:
    """Refuse methods and sources that do not exist, as reading `params.yaml` does."""
    from lori_core.data.sources import pulling
    from lori_core.methods import catalogue

    catalogue.check(params)
    pulling.check(params)
    return params


def _check_one_process(params: Params, task: str) -> None:
    from lori_core.config.training_overrides import processes

    for stage in _STAGES:
        count = processes(params.model_dump(), f"{stage}@{task}")
        if count > 1:
            raise InputError(
                f"training.processes: {count}; the Python API trains in one process: set it to 1, "
                "or use lori run"
            )


def _check_workspace(folder: Path, task: str) -> None:
    """Refuse a folder whose results something else wrote and keeps account of."""
    from lori_core.pipeline import results
    from lori_core.pipeline.stages.pull import ASKED

    if folder.exists() and not folder.is_dir():
        raise InputError(f"workspace: {folder} is no folder; name a folder to write")
    if (folder / "dvc.yaml").exists():
        raise InputError(
            f"workspace: {folder} has a dvc.yaml: lori run trains there; name another folder"
        )
    if (folder / ASKED).is_file():
        return
    for path in (results.ARTIFACTS / task, results.METRICS):
        if (folder / path).exists():
            raise InputError(
                f"workspace: {folder} holds {path}, which no earlier call of train wrote; name "
                "another folder"
            )
