"""Worker processes on one GPU or CPU: how many, and what each is doing."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from flows.environment import child_environment
from flows.execution import gpu_slots, sharing
from flows.execution.sharing import CARD
from lori_core.config import Params
from lori_core.core.errors import LoriError
from lori_core.core.processes.allotment import THREADS
from studies.builder import phase_of
from studies.points import Train

LOGS = Path(".lori/logs")
#: How long a worker may take to end after SIGTERM, in seconds.
ENDING = 3.0


@dataclass(frozen=True)
class Capacity:
    """How many points run at a time, and the environment variables of their processes."""

    workers: int
    variables: Mapping[str, str]


def capacity(params: Params, trainings: Iterable[Train] = ()) -> Capacity:
    """Return how many points run at a time on this machine's first GPU, or on its CPU.

    `execution.share_gpus` sets the number on a GPU. With `auto`, as many run as there are idle
    cores, if the memory of the largest training fits as often. A training that does not fit alone
    does not count. On a CPU `execution.cpu_stages` sets the number.

    Args:
        params: the parameters of the run.
        trainings: the trainings that will run; those of the tasks' own methods count always.
    """
    gpus = gpu_slots.allowed_gpus(params.execution.gpus)[:1]
    if not gpus:
        count = params.execution.cpu_stages
        return Capacity(count, sharing.cpu_share(count, sharing.cores()).variables())
    setting = params.execution.share_gpus
    count = setting if isinstance(setting, int) else _fitting(params, gpus, trainings)
    # Not by the number of workers, which depends on the free memory: the number of threads decides
    # the last bits of some sums.
    threads = sharing.threads(setting, 1, sharing.cores())
    return Capacity(count, {"CUDA_VISIBLE_DEVICES": gpus[0], THREADS: str(threads)})


def _fitting(params: Params, gpus: list[str], trainings: Iterable[Train]) -> int:
    """Return how many of the largest trainings fit on a GPU at once; 1 if that is not known."""
    from flows.execution import demand

    most, card = sharing.this_host().stages_per_gpu("auto", 1), gpu_slots.smallest_card(gpus)
    if card is None or most < 2:
        return 1
    names = [f"{stage}@{task}" for task in params.tasks for stage in ("calibrate", "train")]
    try:
        memory = demand.forecast(params, names, Path("data"), card)
        memory |= _memory(params, {(t.task, t.method) for t in trainings}, card)
    except LoriError:  # a base of another form than the cost model knows
        return 1
    alone = [size for size in memory.values() if size <= card.memory]  # the others never fit
    if not alone:
        return 1
    share = sharing.shares({"largest": max(alone)}, card.memory, most).get("largest")
    return 1 if share is None else max(1, CARD // share.parts)


def _memory(
    params: Params, runs: Iterable[tuple[str, str]], card: gpu_slots.Card
) -> dict[str, float]:
    """Return the forecast GPU memory, bytes, of trainings that are given by task and method."""
    from lori_core import cost

    device = cost.Device("GPU", 1.0, 1.0, card.memory, bfloat16=card.bfloat16)
    model = cost.Model(params, cost.count_splits(params, Path("data")), device)
    return {
        f"{method}@{task}": model.training(task, phase_of(method), method).memory
        for task, method in runs
    }


class Worker:
    """One worker process; `point` is what it runs, None if it waits."""

    def __init__(self, number: int, variables: Mapping[str, str]) -> None:
        """Start the process.

        Args:
            number: its number, in the name of its log.
            variables: environment variables to set.
        """
        self.point: str | None = None
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = LOGS / f"experiment-worker-{number}.log"
        child = "lori_core.core.processes.child"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", child, "studies.timed.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=child_environment(**variables),
                start_new_session=True,  # Ctrl-C reaches only the parent, which stops the workers
            )

    @property
    def answers(self) -> IO[str]:
        """The pipe from which the answers are read."""
        assert self.process.stdout is not None  # noqa: S101 - opened above
        return self.process.stdout

    @property
    def names(self) -> IO[str]:
        """The pipe to which the names of points are written."""
        assert self.process.stdin is not None  # noqa: S101 - opened above
        return self.process.stdin

    def give(self, point: str) -> None:
        """Let the worker run a point."""
        self.point = point
        with suppress(BrokenPipeError):  # it has ended; the end of its answers says so
            self.names.write(f"{point}\n")
            self.names.flush()

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        self.answers.close()
        with suppress(BrokenPipeError):
            self.names.close()

    def take(self) -> tuple[str, dict[str, Any]]:
        """Return the point that the worker ran, and its answer; wait for it."""
        line, point = self.answers.readline(), self.point or ""
        self.point = None
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return point, {"ended": False, "lacks_memory": False, "broken": False, **answer}
        code = self.process.wait()
        killed = code < 0
        text = f"its process ended with {f'signal {-code}' if killed else f'exit code {code}'}"
        # The kernel kills a process with SIGKILL if the machine's memory is full.
        return point, {
            "error": f"{text}; {self.log} has its messages",
            "exit_code": LoriError.exit_code,
            "lacks_memory": killed and -code == 9,
            "ended": True,
            "broken": True,
        }


class Workers:
    """All worker processes of a run."""

    def __init__(self, limit: Capacity) -> None:
        self._variables = limit.variables
        self._selector = selectors.DefaultSelector()
        self._started = 0
        self.alive: list[Worker] = []
        for _ in range(limit.workers):
            self.start()

    def start(self) -> None:
        """Start another worker."""
        worker = Worker(self._started, self._variables)
        self._started += 1
        self.alive.append(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)

    def drop(self, worker: Worker) -> None:
        """Stop one worker."""
        self.alive.remove(worker)
        self._selector.unregister(worker.answers)
        _end([worker])

    @property
    def idle(self) -> list[Worker]:
        """The workers that wait for a point."""
        return [worker for worker in self.alive if worker.point is None]

    def ready(self, seconds: float) -> list[Worker]:
        """Return the workers with an answer; wait up to some seconds for the first."""
        return [key.data for key, _ in self._selector.select(max(0.0, seconds))]

    def stop(self) -> None:
        """Stop all workers; a point that has not finished leaves only its checkpoints."""
        _end(self.alive)
        self.alive = []
        self._selector.close()


def _end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    limit = time.monotonic() + ENDING
    for worker in workers:
        try:
            worker.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(worker.process.pid, 9)
            worker.process.wait()
        worker.close()
