"""Run a stage on a node of a Ray cluster: the order it gets, the work, the result it returns."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from flows.execution.ray import exchange
from flows.execution.ray.exchange import Bundle
from flows.execution.sharing import WHOLE, Share
from flows.execution.stage_run import Finished, MemoryLacking, Place, StageFailed
from flows.execution.tasks import outcome, worth_retrying
from lori_core.core.cache import cache_folder
from lori_core.core.files.atomic import digest


@dataclass(frozen=True)
class Order:
    """What a node needs to run one stage; Ray pickles it, so it holds plain values only.

    Attributes:
        stage: the stage's name.
        gpus: the number of GPUs it needs.
        workspace: the workspace on the machine that started the run.
        parent: the pipeline's rows file, relative to the workspace.
        tags: the tags of the MLflow run.
        upstream: all stages it depends on, directly or not.
        bundle: the workspace's small files; None if the nodes share the workspace's folder.
        share: the stage's share of a GPU.
    """

    stage: str
    gpus: int
    workspace: str
    parent: str
    tags: Mapping[str, str]
    upstream: tuple[str, ...] = ()
    bundle: Bundle | None = None
    share: Share = WHOLE


@dataclass(frozen=True)
class Delivery:
    """What a node returns: the stage's result and, without a shared folder, its files.

    Attributes:
        finished: the stage's result.
        rows: rows files and their shipments: file → text.
        runs: the stage's entries of DVC's run cache: file → text.
    """

    finished: Finished
    rows: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)


def carry_out(order: Order, task_run_id: str, line: Callable[[str], None]) -> Delivery:
    """Run a stage on this node, with the GPUs that Ray assigned to this process.

    Raises:
        StageFailed: as `Place.stage` does.
    """
    try:
        return _carried_out(order, task_run_id, line)
    except MemoryLacking as error:
        error.shared = not order.share.whole
        raise


def _carried_out(order: Order, task_run_id: str, line: Callable[[str], None]) -> Delivery:
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "") if order.gpus else ""
    if order.bundle is None:
        place = Place(Path(order.workspace), order.parent, order.tags)
        return Delivery(place.stage(order.stage, devices, task_run_id, line, order.share))
    # DVC resolves stage names relative to the current folder.
    with _node_workspace(order) as workspace, contextlib.chdir(workspace):
        order.bundle.unpack(workspace)
        exchange.fetch(workspace, order.upstream)
        place = Place(workspace, order.parent, order.tags)
        try:
            finished = place.stage(order.stage, devices, task_run_id, line, order.share)
        except StageFailed as error:
            error.rows = _rows(workspace)
            raise
        delivery = Delivery(finished, _rows(workspace), exchange.publish(workspace, order.stage))
        shutil.rmtree(workspace / ".lori" / "rows", ignore_errors=True)
        return delivery


@contextmanager
def _node_workspace(order: Order) -> Iterator[Path]:
    """Lock and yield this stage's folder on this node; it keeps checkpoints of killed attempts."""
    name = digest([order.workspace, order.stage])[:16]
    folder = cache_folder() / "nodes" / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        local = folder / ".dvc" / "config.local"
        local.parent.mkdir(exist_ok=True)
        local.write_text(f"[cache]\n    dir = {cache_folder() / 'dvc'}\n", encoding="utf-8")
        yield folder


def _rows(workspace: Path) -> dict[str, str]:
    """Return the rows files that the stage's attempts wrote, and their shipments."""
    return {
        path.relative_to(workspace).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((workspace / ".lori" / "rows").rglob("*.jsonl*"))
    }


@task(
    name="stage",
    task_run_name="{order.stage}",
    cache_policy=NO_CACHE,
    retry_condition_fn=worth_retrying,
)
def run_stage_on_node(order: Order) -> State[Any]:
    """Let DVC reproduce one stage on a node of a cluster, on the GPUs assigned there."""
    logger = get_run_logger()
    return outcome(lambda: carry_out(order, str(task_run.id), logger.info))
