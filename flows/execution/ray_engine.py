"""The engine `ray`: each stage on some node of a Ray cluster, with a GPU of its own.

A stage is handed to Ray when all that it needs is there, never before: a task that waits inside
Ray holds a GPU.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from filelock import FileLock

from flows import extras
from flows.execution import exchange
from flows.execution.exchange import Bundle
from flows.execution.slots import allowed_gpus, check_room
from flows.execution.stage_run import Finished, PipelineRun, Place, StageFailed
from flows.versioning import graph
from lori_core.cache import cache_folder
from lori_core.errors import InputError
from lori_core.files import digest, write_text

#: A cluster of one machine without GPUs lets one stage that would need one run at a time.
TURN = "lori_turn"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Future(Protocol):
    """What the task runner gives back for a stage."""

    wrapped_future: Any

    @property
    def state(self) -> Any:
        """The state the task ended in."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended."""


@dataclass(frozen=True)
class Order:
    """What a node needs to run one stage; it is pickled, so it holds nothing alive.

    Attributes:
        stage: its name.
        gpus: how many it needs.
        workspace: the folder on the machine that started the run.
        parent: the pipeline's rows file, relative to the workspace.
        tags: of the run in MLflow.
        upstream: all stages it stands on, near and far.
        bundle: the workspace's small files; None where nodes share the folder itself.
    """

    stage: str
    gpus: int
    workspace: str
    parent: str
    tags: Mapping[str, str]
    upstream: tuple[str, ...] = ()
    bundle: Bundle | None = None


@dataclass(frozen=True)
class Delivery:
    """What a node gives back: how the stage went, and where there is no shared folder its files."""

    finished: Finished
    rows: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)


def carry_out(order: Order, task_run_id: str, line: Callable[[str], None]) -> Delivery:
    """Run a stage on this node, with the GPUs that Ray has given to this process.

    Raises:
        StageFailed: as `Place.stage` does.
    """
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "") if order.gpus else ""
    if order.bundle is None:
        place = Place(Path(order.workspace), order.parent, order.tags)
        return Delivery(place.stage(order.stage, devices, task_run_id, line))
    # DVC reads the names of stages as paths from where it stands.
    with _node_workspace(order) as workspace, contextlib.chdir(workspace):
        order.bundle.unpack(workspace)
        exchange.fetch(workspace, order.upstream)
        place = Place(workspace, order.parent, order.tags)
        try:
            finished = place.stage(order.stage, devices, task_run_id, line)
        except StageFailed as error:
            error.rows = _rows(workspace)
            raise
        delivery = Delivery(finished, _rows(workspace), exchange.publish(workspace, order.stage))
        shutil.rmtree(workspace / ".lori" / "rows", ignore_errors=True)
        return delivery


@contextmanager
def _node_workspace(order: Order) -> Iterator[Path]:
    """Hold this stage's folder on this node; checkpoints of a killed attempt are still in it."""
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


class RayEngine:
    """Runs a plan's stages on a Ray cluster."""

    def __init__(self, run: PipelineRun, execution: Mapping[str, Any]) -> None:
        extras.need("ray", "execution.engine: ray")
        self.run = run
        self.address: str | None = execution.get("ray_address")
        self.remote = execution.get("exchange") == "remote"
        self.limit = execution.get("gpus", "auto")
        self.turns = False
        self.bundle: Bundle | None = None
        if self.remote:
            exchange.check_remote(run.workspace)

    @contextmanager
    def cluster(self, stages: Iterable[graph.Stage]) -> Iterator[Any]:
        """Connect to the cluster, or start one on this machine; yield Prefect's task runner.

        Raises:
            InputError: it cannot be reached, or has no GPU, or no node has as many as one of the
                stages needs.
        """
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
        from prefect_ray import RayTaskRunner

        options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False}
        if self.address is None:
            gpus = len(allowed_gpus(self.limit))
            self.turns = gpus == 0
            # The address of this host would be open to the network; one machine needs none.
            options |= {"num_gpus": gpus, "_node_ip_address": "127.0.0.1"}
            options |= {"resources": {TURN: 1}} if self.turns else {}
            options["_temp_dir"] = tempfile.mkdtemp(prefix="lori-ray-")
        else:
            _reach(self.address)
            del options["include_dashboard"]
        try:
            with RayTaskRunner(self.address, options) as runner:
                self._check(ray, stages)
                yield runner
        except (ConnectionError, RuntimeError) as error:
            if ray.is_initialized():
                raise
            first = " ".join(str(error).split())[:200]
            raise InputError(f"execution.ray_address: {self.address}: {first}") from error

    def _check(self, ray: Any, stages: Iterable[graph.Stage]) -> None:
        url = urlsplit(os.environ.get("PREFECT_API_URL", ""))
        alive = [node for node in ray.nodes() if node["Alive"]]
        hosts = {node["NodeManagerAddress"] for node in alive}
        # Ray itself would wait for such a node for ever.
        most = max((int(node["Resources"].get("GPU", 0)) for node in alive), default=0)
        limit = self.limit if isinstance(self.limit, int) else most
        check_room(stages, min(most, limit), "a node of the Ray cluster (execution.gpus)")
        if self.address is None:
            return
        if url.hostname in LOOPBACK and len(hosts) > 1:
            raise InputError(
                f"PREFECT_API_URL: {url.geturl()} is this machine only, and the Ray cluster has "
                f"{len(hosts)}; start a Prefect server that all of them reach"
            )
        if not most:
            raise InputError(
                f"execution.ray_address: the cluster at {self.address} has no GPU, and stages need "
                "one each; start its nodes with --num-gpus"
            )

    def execute(self, plan: graph.Plan, runner: Any, stage_task: Any) -> dict[str, Future]:
        """Run the stale stages; return each one's future. Those behind a failure never start."""
        import ray

        wanted = {stage.name: stage for stage in plan.stages if stage.name in plan.stale}
        if self.remote:
            exchange.share(self.run.workspace, [n for n in _names(plan) if n not in wanted])
        done: dict[str, Future] = {}
        running: dict[str, Future] = {}
        completed = {name for name in _names(plan) if name not in wanted}
        try:
            while True:
                for stage in self._ready(wanted, running, done, completed):
                    upstream = [done[name] for name in stage.dependencies if name in done]
                    running[stage.name] = self._submit(plan, stage, runner, stage_task, upstream)
                if not running:
                    return done
                self._collect(ray, running, done, completed)
        except BaseException:
            for future in running.values():
                ray.cancel(future.wrapped_future, force=False, recursive=True)
            ray.wait([f.wrapped_future for f in running.values()], num_returns=len(running),
                     timeout=15)  # fmt: skip
            raise

    def _ready(
        self,
        wanted: Mapping[str, graph.Stage],
        running: Mapping[str, Future],
        done: Mapping[str, Future],
        completed: set[str],
    ) -> list[graph.Stage]:
        """Return the stages that may start now, as many as may hold a GPU."""
        holding = sum(wanted[name].gpus for name in running)
        room = self.limit - holding if isinstance(self.limit, int) else sys.maxsize
        ready = []
        for stage in wanted.values():
            if stage.name in running or stage.name in done or {*stage.dependencies} - completed:
                continue
            if stage.gpus > max(room, 0):
                continue
            room -= stage.gpus
            ready.append(stage)
        return ready

    def _submit(
        self,
        plan: graph.Plan,
        stage: graph.Stage,
        runner: Any,
        stage_task: Any,
        upstream: list[Future],
    ) -> Future:
        from prefect_ray.context import remote_options

        order = Order(
            stage.name,
            stage.gpus,
            str(self.run.workspace),
            self.run.place.parent,
            self.run.tags,
            upstream=tuple(sorted(graph.ancestors(plan, stage.name))),
            bundle=exchange.pack(self.run.workspace) if self.remote else None,
        )
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0 if self.turns else stage.gpus}
        if self.turns and stage.gpus:
            options["resources"] = {TURN: 1}
        with remote_options(**options):
            future: Future = runner.submit(stage_task, {"order": order}, wait_for=upstream)
            return future

    def _collect(
        self,
        ray: Any,
        running: dict[str, Future],
        done: dict[str, Future],
        completed: set[str],
    ) -> None:
        """Wait until a stage ends, or a second; take over what ended stages have made."""
        references = {future.wrapped_future: name for name, future in running.items()}
        ended, _ = ray.wait(list(references), timeout=1)
        for reference in ended:
            name = references[reference]
            future = done[name] = running.pop(name)
            future.wait()
            result = future.state.result(raise_on_failure=False)
            self._keep_rows(getattr(result, "rows", {}))
            if isinstance(result, Delivery):
                if result.runs:
                    exchange.adopt(self.run.workspace, name, result.runs)
                completed.add(name)

    def _keep_rows(self, rows: Mapping[str, str]) -> None:
        """Write what a node reported, the shipments first, so that every file has its parent."""
        for name, text in sorted(rows.items(), reverse=True):
            if not (self.run.workspace / name).exists():
                write_text(self.run.workspace / name, text)


def _names(plan: graph.Plan) -> list[str]:
    return [stage.name for stage in plan.stages]


def _reach(address: str) -> None:
    """Refuse an address that nobody listens on, within seconds: Ray itself tries for minutes."""
    if address == "auto":
        return
    import socket

    parts = urlsplit(address if "//" in address else f"//{address}")
    where = (parts.hostname or "localhost", parts.port or 10001)
    try:
        socket.create_connection(where, timeout=5).close()
    except OSError as error:
        raise InputError(
            f"execution.ray_address: {address}: not reachable ({error}); "
            "is `ray start --head` running there, and its port open?"
        ) from None
