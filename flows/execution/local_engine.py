"""The engine `local`: each stage runs as a process on this machine, with its share of the GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from flows.execution import demand, sharing
from flows.execution.engine import Future
from flows.execution.fork_server import serving
from flows.execution.gpu_slots import check_room, smallest_card
from flows.execution.sharing import WHOLE, Share
from flows.execution.stage_run import PipelineRun
from flows.execution.tasks import run_stage
from flows.versioning import graph
from flows.versioning.graph import Plan, Stage


class LocalEngine:
    """Submits all stale stages at once; each waits for its dependencies, then for a GPU."""

    def __init__(self, run: PipelineRun) -> None:
        self.run = run

    def check(self, stages: Sequence[Stage]) -> None:
        """Refuse a stage that needs more GPUs than this machine has."""
        check_room(stages, len(self.run.slots.gpus), "this machine (execution.gpus)")

    def where(self) -> str:
        """Return the number of GPUs as text, or that stages run on the CPU."""
        gpus, at_once = self.run.slots.gpus, self._cpu_stages()
        if gpus:
            return f"{len(gpus)} GPUs"
        return f"the CPU, {'one' if at_once == 1 else at_once} at a time"

    def execute(self, plan: Plan, options: Mapping[str, Any]) -> Mapping[str, Future]:
        """Run the stale stages; stages that depend on a failed stage stay pending."""
        with serving(self.run.workspace) if len(plan.stale) > 1 else nullcontext():
            self.run.shares = self._shares(plan)
            self.run.dependents = graph.dependents(plan)
            futures = self._submitted(plan, run_stage.with_options(**options))
            for future in futures.values():
                future.wait()
        return futures

    def _shares(self, plan: Plan) -> dict[str, Share]:
        """Return the share of a GPU and of the cores of each stale stage that may use a GPU."""
        setting, gpus = self.run.execution.get("share_gpus", "auto"), self.run.slots.gpus
        stale = [stage for stage in plan.stages if stage.name in plan.stale]
        if not gpus:
            share = sharing.cpu_share(self._cpu_stages(), sharing.cores())
            return {stage.name: share for stage in stale if stage.gpus}
        host = sharing.this_host()
        most = host.stages_per_gpu(setting, len(gpus))
        shares = demand.shares(self.run, stale, smallest_card(gpus), most)
        threads = sharing.threads(setting, len(gpus), host.cores)
        return {
            stage.name: replace(shares.get(stage.name, WHOLE), threads=threads)
            for stage in stale
            if stage.gpus
        }

    def _cpu_stages(self) -> int:
        return int(self.run.execution.get("cpu_stages", 1))

    def _submitted(self, plan: Plan, stage_task: Any) -> dict[str, Future]:
        futures: dict[str, Future] = {}
        for stage in plan.stages:
            if stage.name in plan.stale:
                upstream = [futures[name] for name in stage.dependencies if name in futures]
                futures[stage.name] = stage_task.submit(
                    stage=stage.name, gpus=stage.gpus, run=self.run, wait_for=upstream
                )
        return futures
