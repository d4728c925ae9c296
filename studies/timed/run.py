"""Train and score points until all have run or a time limit is reached, several at a time.

Each finished point gets a record, and the files of rows are rewritten as points finish. So a run
that is killed at any moment loses only the points that were running, and the next run goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lori_core.config import Params
from lori_core.core.errors import LoriError
from lori_core.core.tracking import NullTracker
from studies import stages
from studies.points import Collect, Points, Train
from studies.timed.history import History
from studies.timed.order import needed, ordered
from studies.timed.records import Records
from studies.timed.rows import RowsWriter
from studies.timed.workers import Capacity, Worker, Workers, capacity

#: The least time between two writings of the files of rows and of DVC's entries, in seconds.
ROWS_SECONDS = 10.0
#: The longest wait for an answer, in seconds; a signal interrupts it.
POLL_SECONDS = 1.0


@dataclass
class _State:
    """Which points have to run, run, or have failed; and whether any worker has answered."""

    waiting: list[str]
    parents: Mapping[str, Collection[str]]
    unfinished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0
    answered: bool = False

    def next(self) -> str | None:
        """Remove and return the first point whose parents have finished; None if there is none."""
        for number, name in enumerate(self.waiting):
            if self.unfinished.isdisjoint(self.parents[name]):
                return self.waiting.pop(number)
        return None

    def fail(self, name: str, error: str, code: int) -> None:
        """Give up a point and all points that depend on it; the latter stay unfinished."""
        self.failed[name] = error
        self.exit_code = self.exit_code or code
        lost = {name}
        for other in self.waiting:
            if not lost.isdisjoint(self.parents[other]):
                lost.add(other)
        self.waiting = [other for other in self.waiting if other not in lost]


class TimedRun:
    """One call of `lori experiment --time-limit`."""

    def __init__(
        self,
        params: Params,
        points: Points,
        extensions: Mapping[str, Collection[str]],
        say: Callable[[str], None],
    ) -> None:
        """Read which points have finished.

        Args:
            params: the parameters of the run.
            points: the points, and a `Collect` point of each experiment in the order of priority.
            extensions: for each extension file, the kinds of extensions it registers.
            say: called with each line of progress.

        Raises:
            InputError: a record of a finished point cannot be read.
        """
        self._params = params
        self._say = say
        self._points = points.by_name
        self.experiments = [p for p in points.by_name.values() if isinstance(p, Collect)]
        self.order = ordered(self._points, self.experiments)
        self.history = History(Path())
        self.records = Records(self._points, extensions)
        self._adopt()
        recorded = self.records.by_name
        self.files = {name for name in recorded if self.records.has_files(name)}
        self.rows = RowsWriter(self._points, self.experiments, self.records.by_name)

    def _adopt(self) -> None:
        """Record the points that DVC knows to be up to date, which other commands ran."""
        for name in self.order:
            if name in self.history.current and name not in self.records.by_name:
                self.records.add(name, "", {}, 0.0)

    def needed(self) -> list[str]:
        """Return the points that have to run, in their order."""
        return needed(self.order, self._points, set(self.records.by_name), self.files)

    def run(self, deadline: float) -> int:
        """Run points until the deadline; return the exit code: 0, or that of a failed point.

        Args:
            deadline: the time of `time.monotonic()` to stop at.

        Raises:
            Stopped: a signal came; the rows of the finished points are written.
        """
        wanted = self.needed()
        parents = {name: self._points[name].parents for name in wanted}
        state = _State(list(wanted), parents, set(wanted))
        done = len(self.order) - len(wanted)
        self._say(f"{len(self.order)} points: {done} have finished, {len(wanted)} to run")
        with self.history.opened():
            try:
                if wanted and time.monotonic() < deadline:
                    self._work(state, deadline)
            finally:
                self.rows.write()
            self._finish(state)
        return state.exit_code

    def _work(self, state: _State, deadline: float) -> None:
        points = (self._points[name] for name in state.waiting)
        limit = capacity(self._params, [point for point in points if isinstance(point, Train)])
        count = min(limit.workers, len(state.waiting))
        self._say(f"{count} point{'s' if count > 1 else ''} at a time")
        workers = Workers(Capacity(count, limit.variables))
        committing = deque(name for name in self.order if name in self.files)
        last = time.monotonic()
        try:
            while True:
                for worker in workers.idle:
                    name = state.next()
                    if name is not None:
                        worker.give(name)
                left = deadline - time.monotonic()
                if left <= 0 or len(workers.idle) == len(workers.alive):
                    for worker in workers.ready(0):  # a point that has just finished
                        self._take(worker, workers, state)
                    return
                ready = workers.ready(0 if committing else min(left, POLL_SECONDS))
                for worker in ready:
                    committing += self._take(worker, workers, state)
                if not ready and committing:
                    self._commit(committing.popleft())
                elif ready and time.monotonic() - last > ROWS_SECONDS:
                    self.rows.write()
                    self.history.write()
                    last = time.monotonic()
        finally:
            workers.stop()

    def _take(self, worker: Worker, workers: Workers, state: _State) -> list[str]:
        """Handle a worker's answer; return the point if it has finished.

        Raises:
            LoriError: the worker's process ended before any ran a point, as the others would.
        """
        name, answer = worker.take()
        state.answered = state.answered or not answer["ended"]
        if "error" in answer and answer["lacks_memory"] and len(workers.alive) > 1:
            workers.drop(worker)
            state.waiting.insert(0, name)
            count = len(workers.alive)
            self._say(f"{name}: out of memory; it runs again, and {count} at a time from now on")
            return []
        if not state.answered:
            raise LoriError(f"{name}: {answer['error']}")
        if answer["broken"]:
            workers.drop(worker)
            workers.start()
        if "error" not in answer:
            self.records.add(name, answer["machine"], answer["versions"], answer["seconds"])
            self.files.add(name)
            state.unfinished.discard(name)
            finished = len(self.order) - len(state.unfinished)
            self._say(f"{finished}/{len(self.order)} {name} ({answer['seconds']:.1f} s)")
            return [name]
        state.fail(name, answer["error"], answer["exit_code"])
        self._say(f"{name} failed: {answer['error']}")
        return []

    def _commit(self, name: str) -> None:
        """Commit a finished point to DVC if its files and those of its parents are here."""
        if self.files.issuperset((name, *self._points[name].parents)):
            self.history.commit(name)

    def _finish(self, state: _State) -> None:
        """Commit what DVC does not know yet, draw the page, and say what is left."""
        for name in self.order:
            self._commit(name)
        # DVC hashes the files of an experiment's points, which may be on another machine.
        complete = [e for e in self.experiments if self.files.issuperset(e.parents)]
        for experiment in complete:
            self.history.commit(experiment.label, rewritten=True)
        for experiment in self.experiments:
            if experiment.path.is_file() and not self.rows.finished(experiment):
                self._say(
                    f"{experiment.path}: its rows are of an earlier run with other settings, code "
                    "or data, and so is its part of the page: no point of this run has finished"
                )
        if any(self.rows.finished(experiment) for experiment in self.experiments):
            stages.report(NullTracker())
            if len(complete) == len(self.experiments):
                self.history.commit(stages.REPORT_STAGE, rewritten=True)
        left = len(state.unfinished) - len(state.failed)
        if left and not state.failed:
            self._say(f"time limit: {left} points are left; run the same command again to go on")
        if state.failed:
            self._say(f"{len(state.failed)} points failed: {', '.join(sorted(state.failed))}")
