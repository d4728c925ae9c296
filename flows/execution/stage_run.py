"""A pipeline run in its flow's process, and the commands that it runs as child processes."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flows.environment import child_environment
from flows.execution.gpu_slots import GpuSlots, allowed_gpus
from flows.execution.sharing import WHOLE, Share
from flows.execution.subprocesses import GRACE_SECONDS, run_lines
from flows.execution.system_metrics import sampled
from flows.serving.adapter_models import publisher
from flows.tracking import rows as rows_files
from flows.tracking.mlflow_store import store_of
from flows.tracking.rows import PIPELINE, Shipment, new_rows_file
from flows.tracking.sending import HASHES_TAG, read_params
from flows.tracking.shipping import BackgroundShipping
from flows.versioning import git, snapshot
from flows.versioning.graph import PIPELINE as PIPELINE_FILE
from flows.versioning.graph import REPORTS
from flows.versioning.recorded_hashes import (
    all_output_hashes,
    hashes_text,
    output_hashes,
)
from flows.versioning.storage import Pushing
from lori_core.core.tracking import ROWS_VARIABLE

TAIL_LINES = 20
#: How long rows may still be sent to MLflow at the end of a run, and of a stopped run.
SHIPPING_SECONDS, STOPPED_SECONDS = 60.0, 20.0

#: Messages of `lori_core.training.memory`, `lori_core.core.faults` and torch about lack of memory.
OUT_OF_MEMORY = re.compile(
    "does not fit into memory|out of memory|memory runs out|ALLOC_FAILED", re.IGNORECASE
)


class StageFailed(Exception):  # noqa: N818 - a state's name in Prefect's UI
    """A stage's process failed; a retry may help."""

    exit_code = 1
    #: The stage's rows files from a node that does not share the workspace's folder: file → text.
    rows: Mapping[str, str] = {}


class BadInput(StageFailed):
    """A stage refused its input (exit code 2); a retry would only refuse it again."""

    exit_code = 2


class MemoryLacking(StageFailed):
    """A stage ran out of memory."""

    #: Whether the stage had only a share of a GPU; then it may succeed with a whole one.
    shared = False


class Cancelled(StageFailed):
    """The pipeline was stopped while the stage ran or waited."""


@dataclass(frozen=True)
class Finished:
    """A command that succeeded: whether it did any work, and its time in seconds."""

    ran: bool
    seconds: float


class PipelineRun:
    """One pipeline run, in the process of its flow: the GPUs, the rows, the stop signal."""

    def __init__(
        self,
        workspace: Path,
        flow_run_id: str,
        warn: Callable[[str], None],
        report: Path = REPORTS[PIPELINE_FILE],
    ) -> None:
        self.workspace = workspace
        self.warn = warn
        self.report = report
        self.params = read_params(workspace)
        self.execution: Mapping[str, Any] = self.params.get("execution") or {}
        self.retries = int(self.execution.get("retries", 1))
        self.stop = threading.Event()
        self.slots = GpuSlots(allowed_gpus(self.execution.get("gpus", "auto")), self.stop)
        self.shares: dict[str, Share] = {}
        self.dependents: Mapping[str, int] = {}
        self.rows = new_rows_file(workspace, PIPELINE)
        self.tags = {"prefect.flow_run_id": flow_run_id, **git.tags(workspace, warn)}
        self.pushing = Pushing(workspace, self.params.get("storage") or {}, warn)
        self.shipping = BackgroundShipping(
            workspace, store_of(workspace, self.params), warn, self.rows, publisher(workspace, warn)
        )
        parent = self.rows.relative_to(workspace).as_posix()
        self.place = Place(workspace, parent, self.tags, self.stop)

    def start(self) -> None:
        """Open the parent run in MLflow and begin to send rows."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        tags = {"mlflow.runName": f"pipeline {moment}", **self.tags}
        Shipment(Shipment.of(self.rows).path, tags=tags).save()
        rows_files.append(self.rows, "start", stage=PIPELINE, pid=os.getpid())
        rows_files.append(self.rows, "params", values=self.params)
        self.shipping.start()
        self.pushing.start()

    def skipped(self, stages: Sequence[str]) -> None:
        """Link stages of one `dvc.yaml` that do not run to the runs that made their outputs."""
        file = stages[0].rpartition(":")[0] if stages else ""
        hashes = all_output_hashes(self.workspace, file or PIPELINE_FILE)
        for stage in stages:
            outs = hashes_text(hashes.get(stage.rpartition(":")[2], {}))
            rows_files.append(self.rows, "skipped", stage=stage, outs=outs)

    def end(self, failure: tuple[str, int] | None) -> bool:
        """Close the parent run and send the remaining rows; return whether all were sent.

        Args:
            failure: the message and exit code of a failed run; None if it succeeded.
        """
        summary = read_summary(self.workspace / self.report)
        unsent = self.pushing.finish(everything=failure is None)
        if self.pushing.remote:
            sent = "; ".join(unsent) or f"all to {self.pushing.remote}"
            rows_files.append(self.rows, "tags", values={"lori.push": sent})
        if failure is None:
            rows_files.append(self.rows, "metrics", values=summary.get("metrics") or {}, step=None)
            if (self.workspace / self.report).is_dir():
                rows_files.append(self.rows, "artifact", path=self.report.as_posix())
            self._save_snapshot()
            rows_files.append(self.rows, "end")
        else:
            message, exit_code = failure
            self._save_snapshot()
            rows_files.append(self.rows, "error", message=message, exit_code=exit_code)
        return self.shipping.finish(STOPPED_SECONDS if self.stop.is_set() else SHIPPING_SECONDS)

    def _save_snapshot(self) -> None:
        """Save a snapshot (`dvc.lock`, `params.yaml`, …) in the workspace and in MLflow's run."""
        folder = snapshot.save(self.workspace, self.rows.stem)
        if folder is not None:
            rows_files.append(self.rows, "artifact", path=str(folder.relative_to(self.workspace)))

    def lacked_memory(self, stage: str) -> None:
        """Give whole GPUs to a stage that ran out of memory, and to its step's other stages."""
        step = stage.partition("@")[0]
        for name, share in self.shares.items():
            if name.partition("@")[0] == step:
                self.shares[name] = replace(share, parts=WHOLE.parts, memory=WHOLE.memory)

    def cancel(self) -> None:
        """Stop all running and waiting stages; return when all have ended, or after a timeout."""
        self.stop.set()
        self.slots.wake()
        self.pushing.cancel()
        self.place.settle(2 * GRACE_SECONDS)


@dataclass
class Place:
    """Runs a pipeline's commands in a workspace, on this machine or on a node of a cluster.

    Attributes:
        workspace: the folder that commands run in.
        parent: the pipeline's rows file, relative to the workspace.
        tags: the tags of each MLflow run.
        stop: set when the pipeline is being stopped.
    """

    workspace: Path
    parent: str
    tags: Mapping[str, str]
    stop: threading.Event = field(default_factory=threading.Event)
    _running: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def settle(self, seconds: float) -> None:
        """Wait at most `seconds` until all commands have ended and written their last rows."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running, seconds)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def stage(
        self,
        stage: str,
        devices: str,
        task_run_id: str,
        line: Callable[[str], None],
        share: Share = WHOLE,
    ) -> Finished:
        """Let DVC reproduce one stage, with its share of the devices.

        Raises:
            BadInput: the stage refused its input.
            Cancelled: the pipeline was stopped.
            MemoryLacking: the stage ran out of memory.
            StageFailed: the stage failed in another way.
        """
        module = "flows.execution.stage_process"
        command = [sys.executable, "-m", "lori_core.core.processes.forked", module, stage]
        finished, rows = self.command(stage, command, devices, task_run_id, line, share.variables())
        outs = hashes_text(output_hashes(self.workspace, stage))
        if finished.ran:
            rows_files.append(rows, "tags", values={HASHES_TAG: outs})
        else:
            rows_files.append(self.workspace / self.parent, "skipped", stage=stage, outs=outs)
        return finished

    def command(
        self,
        name: str,
        command: Sequence[str],
        devices: str,
        task_run_id: str,
        line: Callable[[str], None],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[Finished, Path]:
        """Run a command that writes rows; return its result and its rows file.

        A command that wrote rows did work. Raises as `stage` does.
        """
        rows = new_rows_file(self.workspace, name)
        self._announce(rows, name, task_run_id)
        tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)

        def take(text: str) -> None:
            tail.append(text)
            line(text)

        started = time.monotonic()
        with self._counted():
            with sampled(rows):
                code = run_lines(
                    command,
                    folder=self.workspace,
                    environment=child_environment(
                        **{ROWS_VARIABLE: str(rows), "CUDA_VISIBLE_DEVICES": devices},
                        **variables,
                    ),
                    line=take,
                    stop=self.stop,
                )
            ran = rows.exists()
            if code != 0 or self.stop.is_set():
                raise self._failure(rows, code, list(tail))
        if not ran:
            Shipment.of(rows).path.unlink(missing_ok=True)
        return Finished(ran, time.monotonic() - started), rows

    def _announce(self, rows: Path, name: str, task_run_id: str) -> None:
        tags = {"prefect.task_run_id": task_run_id, "mlflow.runName": name, **self.tags}
        Shipment(Shipment.of(rows).path, parent=self.parent, tags=tags).save()

    def _failure(self, rows: Path, code: int, tail: list[str]) -> StageFailed:
        """Return the error of a failed command: from its rows, else from its last output line."""
        if self.stop.is_set():
            self._report(rows, "cancelled", 128 + signal.SIGTERM)
            return Cancelled("cancelled")
        last = rows_files.last_end(rows)
        if last is not None and last["type"] == "error":
            message, exit_code = str(last.get("message")), int(last.get("exit_code", 1))
        else:
            message, exit_code = _exit_message(code, tail), code
            self._report(rows, message, code)
        if exit_code == BadInput.exit_code:
            return BadInput(message)
        return (MemoryLacking if OUT_OF_MEMORY.search(message) else StageFailed)(message)

    def _report(self, rows: Path, message: str, exit_code: int) -> None:
        """Write an error row for a process that did not; delete the shipment if it wrote none."""
        if rows.exists():
            rows_files.append(rows, "error", message=message, exit_code=exit_code)
        else:
            Shipment.of(rows).path.unlink(missing_ok=True)


def _exit_message(code: int, tail: list[str]) -> str:
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return (
            "killed (SIGKILL), as the kernel does when memory runs out: see dmesg; lower the "
            f"batch sizes, or end other processes{f'; its last line: {tail[-1]}' if tail else ''}"
        )
    ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{tail[-1]} ({ended})" if tail else ended


def read_summary(report: Path) -> dict[str, Any]:
    """Return the content of a report's `summary.json`; empty if it is missing or invalid."""
    path = report / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}
