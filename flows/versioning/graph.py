"""The pipeline's graph of stages, by DVC: which stages are stale, and why."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.environment import quiet_environment
from flows.versioning.dvc.damage import check_files
from flows.versioning.dvc.dvc_repo import files_hashed_once, opened, parameters_read_once
from flows.versioning.dvc.pipeline_file import FILE
from flows.versioning.workspace import check as check_workspace
from lori_core.config.training_overrides import processes
from lori_core.core.errors import InputError, LoriError

#: How long the status of a stage that DVC reports as busy is tried again.
BUSY_SECONDS = 10.0


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml`.

    Attributes:
        name: as `dvc stage list` shows it (`train@math`).
        dependencies: the names of the stages it depends on directly.
        gpus: the number of GPUs it needs.
        command: its command, the lines joined.
        outputs: the paths of its outputs.
    """

    name: str
    dependencies: tuple[str, ...]
    gpus: int
    command: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The stages in topological order, and the reasons why some of them must run.

    `stages` has each stage after its dependencies; `stale` has the reasons by stage.
    """

    stages: tuple[Stage, ...]
    stale: Mapping[str, list[str]]


#: The product's pipeline, and the experiments', whose stage names DVC prefixes with the path.
PIPELINE = FILE
PARAMS = "params.yaml"
EXPERIMENTS = "experiments/dvc.yaml"
#: The folder of each pipeline's report.
REPORTS = {PIPELINE: Path("report"), EXPERIMENTS: Path("experiments/report")}


def ancestors(plan: Plan, name: str) -> set[str]:
    """Return all stages that a stage depends on, directly or not."""
    direct = {stage.name: stage.dependencies for stage in plan.stages}
    result: set[str] = set()
    todo = list(direct[name])
    while todo:
        upstream = todo.pop()
        if upstream not in result:
            result.add(upstream)
            todo.extend(direct.get(upstream, ()))
    return result


def dependents(plan: Plan) -> dict[str, int]:
    """Return for each stage how many stages depend on it, directly or not."""
    later: dict[str, set[str]] = {stage.name: set() for stage in plan.stages}
    for stage in reversed(plan.stages):
        for name in later.keys() & set(stage.dependencies):
            later[name] |= {stage.name, *later[stage.name]}
    return {name: len(stages) for name, stages in later.items()}


def urgent_first(plan: Plan) -> list[Stage]:
    """Return the stages, that on which most others depend first; each after its dependencies."""
    later = dependents(plan)
    return sorted(plan.stages, key=lambda stage: -later[stage.name])


def stale(workspace: Path) -> dict[str, list[str]]:
    """Return the stages that would run, each with its reasons; see `plan`."""
    return dict(plan(workspace).stale)


def plan(workspace: Path, pipeline: str = PIPELINE, params: str | None = None) -> Plan:
    """Return the stages and, for each stage that would run, the reasons.

    A stage runs if its own parameters, inputs, command or outputs changed, or if a stage that it
    depends on, directly or not, runs (`after calibrate@math`).

    Args:
        workspace: the folder of DVC's workspace.
        pipeline: the file that defines the stages.
        params: a text to use instead of that of `params.yaml`; the file is not written.

    Raises:
        InputError: `dvc.yaml` or `params.yaml` cannot be read, or there is no DVC workspace.
        LoriError: another DVC process holds the workspace.
    """
    # DVC computes a stage's status only under its lock, which other processes hold briefly.
    with (
        _repository(workspace, params) as repo,
        repo.lock,
        parameters_read_once(),
        files_hashed_once(),
    ):
        graph = repo.index.graph
        described = _describe(graph, pipeline, _values(repo, workspace / PARAMS))
        nodes = {node.addressing: node for node in graph}
        direct = {stage.name: _reasons_when_free(nodes[stage.name]) for stage in described}
        return Plan(tuple(described), _with_descendants(described, direct))


def cached(workspace: Path, plan: Plan, params: str | None = None) -> set[str]:
    """Return the stale stages whose outputs DVC would restore from its run cache.

    A stage that depends on a stage that runs is left out: its inputs are not known yet.
    """
    restored: dict[str, Any] = {}
    with _repository(workspace, params) as repo, repo.lock, parameters_read_once():
        nodes = {node.addressing: node for node in repo.index.graph}
        for stage in plan.stages:
            above = [name for name in stage.dependencies if name in plan.stale]
            if stage.name not in plan.stale or any(name not in restored for name in above):
                continue
            upstream = [restored[name] for name in above]
            cached_stage = _from_run_cache(repo, nodes[stage.name], upstream)
            if cached_stage is not None:
                restored[stage.name] = cached_stage
    return set(restored)


def _from_run_cache(repo: Any, node: Any, upstream: list[Any]) -> Any:
    """Return the run cache's stage for `node` given its cached `upstream` stages, or None."""
    from dvc.exceptions import DvcException

    outs = {str(out): out for stage in upstream for out in stage.outs}
    try:
        for dependency in node.deps:
            if str(dependency) in outs:
                dependency.hash_info = outs[str(dependency)].hash_info
            else:
                dependency.save()
        entry = repo.stage_cache._load(node)
        if entry is None:
            return None
        stage = repo.stage_cache._create_stage(entry, wdir=node.wdir)
        return stage if stage.outs_cached() else None
    except (DvcException, OSError):  # an input that is not there yet
        return None


@contextmanager
def _repository(workspace: Path, params: str | None = None) -> Iterator[Any]:
    quiet_environment()
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.logger import set_loggers_level

    check_files(workspace)
    try:
        with set_loggers_level(logging.ERROR), opened(workspace) as repo:
            if params is not None:
                _stand_in(repo, str(workspace / PARAMS), params)
            yield repo
    except LockError as error:
        busy = _one_line(error).partition(" If there are no processes")[0]
        raise LoriError(f"another DVC process is at work: {busy}") from error
    except DvcException as error:
        check_workspace(workspace)  # may raise a better message
        raise InputError(_one_line(error)) from error
    except PermissionError as error:
        raise InputError(
            f"{error.filename}: cannot be written, which DVC needs even to read the status; work "
            "in a clone of your own"
        ) from None


def _stand_in(repo: Any, path: str, text: str) -> None:
    """Let DVC read `text` instead of a file's content; the file is not written."""
    real = repo.fs.open

    def opened(name: Any, *arguments: Any, **options: Any) -> Any:
        if os.path.abspath(name) == os.path.abspath(path):  # noqa: PTH100 - not resolved
            return io.StringIO(text)
        return real(name, *arguments, **options)

    repo.fs.open = opened


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _values(repo: Any, path: Path) -> Any:
    """Return `params.yaml` as plain values; None if the file does not exist."""
    from dvc.utils.serialize import load_yaml

    return load_yaml(str(path), fs=repo.fs) if path.is_file() else None


def _describe(graph: Any, pipeline: str, params: Any) -> list[Stage]:
    import networkx
    from dvc.stage import PipelineStage

    # DVC's edges point from a stage to what it depends on.
    order = networkx.lexicographical_topological_sort(graph.reverse(), key=lambda n: n.addressing)
    return [
        Stage(
            name=node.addressing,
            dependencies=tuple(
                sorted(
                    upstream.addressing
                    for upstream in graph.successors(node)
                    if isinstance(upstream, PipelineStage)
                )
            ),
            # A training that is spread over processes needs a GPU for each of them.
            gpus=int((node.meta or {}).get("gpus", 0)) * processes(params, node.addressing),
            command=node.cmd if isinstance(node.cmd, str) else "\n".join(node.cmd or ()),
            outputs=tuple(sorted(out.def_path for out in node.outs)),
        )
        for node in order
        if isinstance(node, PipelineStage) and node.path_in_repo == pipeline
    ]


def _reasons_when_free(node: Any) -> list[str]:
    """Return a stage's reasons; wait while a process that was just killed still holds its lock.

    DVC drops the locks of dead processes, but takes a killed process for alive until it is reaped.
    """
    from dvc.lock import LockError

    limit = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return _reasons(node)
        except LockError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.2)


def _reasons(node: Any) -> list[str]:
    """Return the changes of one stage itself; empty if nothing changed."""
    status = node.status().get(node.addressing, [])
    if not status:
        return []
    if node.outs and not any(out.hash_info for out in node.outs):
        return ["new stage"]
    reasons: list[str] = []
    for entry in status:
        if isinstance(entry, str):
            reasons.append("command changed" if entry == "changed command" else entry)
            continue
        for path, state in entry.get("changed deps", {}).items():
            reasons.extend(_dependency_reasons(node, path, state))
        for path, state in entry.get("changed outs", {}).items():
            reasons.append(_output_reason(path, state))
    return reasons


def _dependency_reasons(node: Any, path: str, state: Any) -> list[str]:
    if not isinstance(state, Mapping):
        words = {"deleted": "missing", "new": "is new"}
        return [f"input {path} {words.get(state, 'changed')}"]
    reasons = []
    for dependency in node.deps:
        if str(dependency) == path and hasattr(dependency, "read_params"):
            recorded, actual = dependency.hash_info.value or {}, dependency.read_params()
            for name in state:
                old, new = recorded.get(name, _MISSING), actual.get(name, _MISSING)
                reasons.extend(_parameter_reasons(name, old, new))
    return reasons


_MISSING = object()


def _parameter_reasons(name: str, old: Any, new: Any) -> list[str]:
    """Return one reason for each key that differs, also inside nested sections."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new}, key=str)
        return [
            reason
            for key in keys
            for reason in _parameter_reasons(
                f"{name}.{key}", old.get(key, _MISSING), new.get(key, _MISSING)
            )
        ]
    if old is _MISSING:
        return [f"parameter {name} is new"]
    if new is _MISSING:
        return [f"parameter {name} was removed"]
    return [] if old == new else [f"parameter {name} changed ({_short(old)} → {_short(new)})"]


def _short(value: Any, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _output_reason(path: str, state: str) -> str:
    words = {"deleted": "is missing", "modified": "was changed", "not in cache": "is not in cache"}
    return f"output {path} {words.get(state, state)}"


def _with_descendants(order: list[Stage], direct: Mapping[str, list[str]]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    roots: dict[str, set[str]] = {}
    for stage in order:
        above: set[str] = set().union(*(roots.get(name, set()) for name in stage.dependencies))
        if direct[stage.name]:
            result[stage.name] = direct[stage.name]
            roots[stage.name] = {stage.name}
        elif above:
            result[stage.name] = [f"after {name}" for name in sorted(above)]
            roots[stage.name] = above
    return result
