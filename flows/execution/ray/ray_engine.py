"""The engine `ray`: each stage runs on a node of a Ray cluster, with its share of the GPUs there.

A stage is submitted to Ray only after its dependencies have completed: a task that waits inside Ray
holds a GPU.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

from flows import extras
from flows.execution import assets, demand
from flows.execution.engine import Future
from flows.execution.gpu_slots import allowed_gpus, check_room, smallest_card
from flows.execution.ray import exchange
from flows.execution.ray.ray_cards import card_of, stages_per_gpu
from flows.execution.ray.ray_node import Delivery, Order, run_stage_on_node
from flows.execution.sharing import CARD, WHOLE, Share
from flows.execution.stage_run import MemoryLacking, PipelineRun
from flows.versioning import graph
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_text

#: A Ray resource: without GPUs, a cluster of one machine runs one GPU stage at a time.
TURN = "lori_turn"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class RayFuture(Future, Protocol):
    """The future of a task that was submitted to Ray."""

    wrapped_future: Any


class RayEngine:
    """Runs a plan's stages on a Ray cluster."""

    def __init__(self, run: PipelineRun) -> None:
        self.run = run
        self.address: str | None = run.execution.get("ray_address")
        self.remote = run.execution.get("exchange") == "remote"
        self.limit = run.execution.get("gpus", "auto")
        self.turns = False

    def check(self, stages: Sequence[graph.Stage]) -> None:
        """Refuse to start without the extra `ray`, or without a remote if artifacts need one.

        The nodes' GPUs are checked later, when the cluster is connected.
        """
        extras.need("ray", "execution.engine: ray")
        if self.remote:
            exchange.check_remote(self.run.workspace)

    def where(self) -> str:
        """Return the cluster's address."""
        return f"Ray at {self.address or 'this machine'}"

    def execute(self, plan: graph.Plan, options: Mapping[str, Any]) -> Mapping[str, Future]:
        """Run the stale stages; stages that depend on a failed stage never start."""
        stale = [stage for stage in plan.stages if stage.name in plan.stale]
        if not stale:
            return {}
        with self.cluster(stale) as runner:
            return self._execute(plan, runner, run_stage_on_node.with_options(**options))

    @contextmanager
    def cluster(self, stages: Sequence[graph.Stage]) -> Iterator[Any]:
        """Connect to the cluster, or start one on this machine; yield Prefect's task runner.

        Raises:
            InputError: the cluster cannot be reached or has no GPU, or a stage needs more GPUs than
                any node has.
        """
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
        from prefect_ray import RayTaskRunner

        options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False}
        if self.address is None:
            gpus = len(allowed_gpus(self.limit))
            self.turns = gpus == 0
            # Ray's default is this host's address, which is open to the network.
            options |= {"num_gpus": gpus, "_node_ip_address": "127.0.0.1"}
            options |= {"resources": {TURN: 1}} if self.turns else {}
            options["_temp_dir"] = tempfile.mkdtemp(prefix="lori-ray-")
        else:
            _reach(self.address)
            del options["include_dashboard"]
        try:
            with RayTaskRunner(self.address, options) as runner:
                self._check(ray, stages)
                self.run.shares = self._shares(ray.nodes(), list(stages))
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
        # Ray would wait forever for a node with enough GPUs.
        most = max((int(node["Resources"].get("GPU", 0)) for node in alive), default=0)
        limit = self.limit if isinstance(self.limit, int) else most
        check_room(stages, min(most, limit), "a node of the Ray cluster (execution.gpus)")
        if self.address is None:
            return
        if url.hostname in LOOPBACK and len(hosts) > 1:
            raise InputError(
                f"PREFECT_API_URL: {url.geturl()} reaches this machine only, and the Ray cluster "
                f"has {len(hosts)} machines; start a Prefect server that all of them reach"
            )
        if not most:
            raise InputError(
                f"execution.ray_address: the cluster at {self.address} has no GPU, and stages need "
                "one each; start its nodes with --num-gpus"
            )

    def _execute(self, plan: graph.Plan, runner: Any, stage_task: Any) -> dict[str, RayFuture]:
        import ray

        urgent = graph.urgent_first(plan)
        wanted = {stage.name: stage for stage in urgent if stage.name in plan.stale}
        if self.remote:
            exchange.share(self.run.workspace, [n for n in _names(plan) if n not in wanted])
        done: dict[str, RayFuture] = {}
        running: dict[str, RayFuture] = {}
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
        running: Mapping[str, RayFuture],
        done: Mapping[str, RayFuture],
        completed: set[str],
    ) -> list[graph.Stage]:
        """Return the stages that may start now within `execution.gpus`."""
        holding = sum(self._parts(wanted[name]) for name in running)
        room = CARD * self.limit - holding if isinstance(self.limit, int) else sys.maxsize
        ready = []
        for stage in wanted.values():
            if stage.name in running or stage.name in done or {*stage.dependencies} - completed:
                continue
            if self._parts(stage) > max(room, 0):
                continue
            room -= self._parts(stage)
            ready.append(stage)
        return ready

    def _parts(self, stage: graph.Stage) -> int:
        return stage.gpus * self.run.shares.get(stage.name, WHOLE).parts

    def _shares(
        self, nodes: Sequence[Mapping[str, Any]], stages: Sequence[graph.Stage]
    ) -> dict[str, Share]:
        """Return the stages' shares of a GPU, as fractions like Ray's."""
        setting = self.run.execution.get("share_gpus", "auto")
        card = smallest_card(allowed_gpus(self.limit)) if self.address is None else None
        most = stages_per_gpu(nodes, setting)
        return demand.shares(self.run, stages, card or card_of(nodes), most)

    def resources(self, stage: graph.Stage) -> dict[str, Any]:
        """Return the resources that Ray reserves for a stage."""
        if self.turns:
            turn = {"resources": {TURN: 1}} if stage.gpus else {}
            return {"num_cpus": 1, "num_gpus": 0, **turn}
        return {"num_cpus": 1, "num_gpus": self._parts(stage) / CARD}

    def _submit(
        self,
        plan: graph.Plan,
        stage: graph.Stage,
        runner: Any,
        stage_task: Any,
        upstream: list[RayFuture],
    ) -> RayFuture:
        from prefect_ray.context import remote_options

        order = Order(
            stage.name,
            stage.gpus,
            str(self.run.workspace),
            self.run.place.parent,
            self.run.tags,
            upstream=tuple(sorted(graph.ancestors(plan, stage.name))),
            bundle=exchange.bundle(self.run.workspace) if self.remote else None,
            share=self.run.shares.get(stage.name, WHOLE),
        )
        with remote_options(**self.resources(stage)):
            future: RayFuture = runner.submit(stage_task, {"order": order}, wait_for=upstream)
            return future

    def _collect(
        self,
        ray: Any,
        running: dict[str, RayFuture],
        done: dict[str, RayFuture],
        completed: set[str],
    ) -> None:
        """Wait at most a second for stages to end; take over the rows and outputs of those."""
        references = {future.wrapped_future: name for name, future in running.items()}
        ended, _ = ray.wait(list(references), timeout=1)
        for reference in ended:
            name = references[reference]
            future = running.pop(name)
            future.wait()
            result = future.state.result(raise_on_failure=False)
            self._write_rows(getattr(result, "rows", {}))
            if isinstance(result, MemoryLacking) and result.shared:
                self.run.warn(f"{name}: {result}; running it again on a GPU of its own")
                self.run.lacked_memory(name)
                continue
            done[name] = future
            if isinstance(result, Delivery):
                if result.runs:
                    exchange.adopt(self.run.workspace, name, result.runs)
                if result.finished.ran:
                    assets.record(self.run, name)
                completed.add(name)

    def _write_rows(self, rows: Mapping[str, str]) -> None:
        """Write a node's rows files, shipments first, so that each rows file has its parent run."""
        for name, text in sorted(rows.items(), reverse=True):
            if not (self.run.workspace / name).exists():
                write_text(self.run.workspace / name, text)


def _names(plan: graph.Plan) -> list[str]:
    return [stage.name for stage in plan.stages]


def _reach(address: str) -> None:
    """Refuse an unreachable address within seconds; Ray itself would try for minutes."""
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
