"""Load parameters, and train one task in a folder."""

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
        source: the path of a `params.yaml` or of a profile; or its sections as a mapping.

    Returns:
        The parameters, immutable, with defaults filled in.

    Raises:
        ConfigError: a key or value is not allowed; the error says which are.
    """
    from lori_core import config
    from lori_core.pipeline import params_file

    if not isinstance(source, Mapping):
        return params_file.load(Path(source))
    return _checked(config.parse(source, "params"))


def train(params: Params, task: str, *, workspace: str | PathLike[str]) -> Path:
    """Train the adapter of one task in a folder, by the method of the task's section.

    Runs stages of the pipeline in this process: it pulls the data of all tasks, then runs
    `calibrate`, `mask` and `train` of this task. Outputs have the pipeline's paths: `data/`,
    `artifacts/<task>/` and `metrics/`. During the call, `workspace` is the process's working
    directory, so relative paths in `params` are relative to it, and only one thread may call this
    function at a time.

    Args:
        params: the run; see `load_params`.
        task: a key of `params.tasks`.
        workspace: a folder, created if it is missing. The outputs of an earlier call are replaced;
            an interrupted training resumes from its last checkpoint.

    Returns:
        The absolute path of the adapter's folder, for `load_adapter`, `merge` and `evaluate`.

    Raises:
        InputError: the task does not exist, parameters or data cannot be used, or the folder
            belongs to a pipeline (`lori run`) or has results that no earlier call wrote.
        DivergedError: a loss is not finite.
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
    """Refuse methods and sources that do not exist, as when `params.yaml` is loaded."""
    from lori_core.data.sources import pulling
    from lori_core.methods import catalogue

    catalogue.check(params)
    pulling.check(params)
    return params


def _check_one_process(params: Params, task: str) -> None:
    """Refuse `training.processes` above 1."""
    from lori_core.config.training_overrides import processes

    for stage in _STAGES:
        count = processes(params.model_dump(), f"{stage}@{task}")
        if count > 1:
            raise InputError(
                f"training.processes: {count}; the Python API trains in one process: set it to 1, "
                "or use lori run"
            )


def _check_workspace(folder: Path, task: str) -> None:
    """Refuse a folder of a pipeline, or one with results that no earlier call of `train` wrote."""
    from lori_core.pipeline import results
    from lori_core.pipeline.stages.pull import ASKED

    if folder.exists() and not folder.is_dir():
        raise InputError(f"workspace: {folder} is not a folder; name a folder to write")
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
