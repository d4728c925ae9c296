"""What a scenario sees of a Prefect server and of a workspace's processes and locks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE = 240.0


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait for a condition and return its value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with suppress(httpx.HTTPError, psutil.Error):
            value = condition()
            if value:
                return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {seconds:.0f} s")


@dataclass(frozen=True)
class Server:
    """A Prefect server, asked over HTTP; `auth` is user:password where it wants one."""

    url: str
    auth: str = ":"

    def ask(self, method: str, path: str, **values: Any) -> Any:
        user, _, password = self.auth.partition(":")
        answer = httpx.request(
            method, f"{self.url}{path}", timeout=30, auth=(user, password), **values
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> str:
        return str(self.ask("GET", f"/deployments/name/lori/{name}")["id"])

    def start_run(self, name: str = "full-pipeline", **parameters: Any) -> str:
        def start() -> str:
            path = f"/deployments/{self.deployment(name)}/create_flow_run"
            return str(self.ask("POST", path, json={"parameters": parameters})["id"])

        # A busy server may say 503.
        return str(until(start, "a new run"))

    def state(self, run: str) -> str:
        return str(self.ask("GET", f"/flow_runs/{run}")["state_type"])

    def end_of(self, run: str, seconds: float = PATIENCE) -> str:
        """Wait until a run has ended; return its state."""
        ended = until(lambda: (s := self.state(run)) in FINAL and s, f"the end of {run}", seconds)
        return str(ended)

    def unfinished(self) -> Iterator[str]:
        """Yield what the server takes for running, and the slots it takes for taken."""
        for run in self.ask("POST", "/flow_runs/filter", json={}):
            # The schedule's own runs wait for their time.
            if run["state_type"] not in (*FINAL, "SCHEDULED"):
                yield f"a flow run is {run['state_name']}"
        for run in self.ask("POST", "/task_runs/filter", json={}):
            if run["state_type"] == "RUNNING":
                yield f"the task run {run['name']} is running"
        for limit in self.ask("POST", "/v2/concurrency_limits/filter", json={}):
            if limit["active_slots"]:
                yield f"{limit['name']}: {limit['active_slots']} slots are taken"


def processes(workspace: Path, *words: str) -> list[psutil.Process]:
    """Return the processes that stand in a workspace and have one of these words on their line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if any(word in line for word in words):
            with suppress(psutil.Error):
                if process.cwd() == str(workspace):
                    found.append(process)
    return found


def flows(workspace: Path) -> list[psutil.Process]:
    """Return the processes of flows under a worker, alive or orphaned."""
    return processes(workspace, "prefect flow-run execute", "prefect.engine")


def locks(workspace: Path) -> Iterator[str]:
    """Yield locks that stay behind."""
    from flows.doctor.checks import locks as findings
    from flows.lock import pipeline_runs

    if pipeline_runs(workspace):
        yield "the pipeline lock is held"
    for finding in findings(workspace, {}):
        if not finding.ok:
            yield finding.text
