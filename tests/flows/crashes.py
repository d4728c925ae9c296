"""Kills parts of a running pipeline at random moments and checks what is left: `python crashes.py`.

A Prefect server, a worker and MLflow, as `make up` starts them, over a workspace whose stages take
half a second. Each round empties the workspace, starts the deployment, kills something at a moment
drawn from a seeded stream, brings back what a supervisor would, and runs the deployment again:

* stage: the process that `dvc.yaml` starts;
* flow: the process of the flow, under the worker;
* worker: the process that polls for work;
* server: Prefect's server.

(The fifth kind, a node of a Ray cluster, is `test_flow_ray.py`.)
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from flows.local_api import free_port, healthy  # noqa: E402
from flows.stage_process import reproduce  # noqa: E402

KINDS = ("stage", "flow", "worker", "server")
STAGES = ("prepare", "train@a", "train@b", "train@c", "report")
PATIENCE = 240.0

WORK = dedent(
    """
    import json, os, sys, time
    from pathlib import Path
    stage, out, *inputs = sys.argv[1:]
    rows = Path(os.environ.get("LORI_ROWS") or f".lori/rows/{stage}/plain-{os.getpid()}.jsonl")
    rows.parent.mkdir(parents=True, exist_ok=True)
    def row(kind, **fields):
        with rows.open("a") as file:
            file.write(json.dumps({"type": kind, "time": time.time(), **fields}) + "\\n")
    row("start", stage=stage, pid=os.getpid())
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    text = stage + "".join(Path(name).read_text() for name in inputs)
    with open(out, "w") as file:
        for step, letter in enumerate(text):  # a killed stage leaves a part of its output
            file.write(letter)
            file.flush()
            time.sleep(0.6 / len(text))
    row("metrics", values={"length": len(text)}, step=None)
    row("end")
    """
)
DVC = dedent(
    """
    stages:
      prepare:
        cmd: {python} toy.py prepare out/prepare.txt data/in.txt
        deps: [data/in.txt]
        outs: [out/prepare.txt]
        meta: {{gpus: 1}}
      train:
        foreach: [a, b, c]
        do:
          cmd: {python} toy.py train@${{item}} out/${{item}}.txt out/prepare.txt
          deps: [out/prepare.txt]
          outs: ["out/${{item}}.txt"]
          meta: {{gpus: 1}}
      report:
        cmd: {python} toy.py report report/out.txt out/a.txt out/b.txt out/c.txt
        deps: [out/a.txt, out/b.txt, out/c.txt]
        outs: [report/out.txt]
        meta: {{gpus: 0}}
    """
)


def make(folder: Path) -> Path:
    """Write the workspace: the project's flow, over toy stages."""
    from dvc.repo import Repo

    (folder / "data").mkdir(parents=True)
    Repo.init(str(folder), no_scm=True).close()
    for name in ("flows", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", folder)
    flow = folder / "flows" / "pipeline.py"
    # There is no data to pull; the rest of the flow is as it is.
    flow.write_text(flow.read_text().replace('("lori_core.cli", "pull")', '("platform",)'))
    (folder / "toy.py").write_text(WORK)
    (folder / "dvc.yaml").write_text(DVC.format(python=sys.executable))
    (folder / "data" / "in.txt").write_text("one two three\n")
    (folder / "params.yaml").write_text(
        "tasks: {a: {}, b: {}, c: {}}\nexecution: {retries: 2}\ntracking: {experiment: crashes}\n"
    )
    return folder


@dataclass
class Services:
    """The services of one workspace, and how to bring one back."""

    workspace: Path
    variables: Mapping[str, str]
    api: str

    def tool(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "flows.services", *arguments],
            cwd=self.workspace,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def process(self, name: str) -> psutil.Process | None:
        """Return the process of a service, if it lives."""
        from flows.services import _process, _read

        entry = _read(self.workspace)["processes"][name]
        found: psutil.Process | None = _process(entry)
        return found

    def flow(self) -> psutil.Process | None:
        """Return the process of the flow under the worker, alive or orphaned."""
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if "prefect" in words and ("flow-run execute" in words or "prefect.engine" in words):
                with suppress(psutil.Error):
                    if process.cwd() == str(self.workspace):
                        return process
        return None

    def stage(self) -> psutil.Process | None:
        """Return the process of a stage."""
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if len(words) > 2 and words[1] == "toy.py":
                with suppress(psutil.Error):
                    if process.cwd() == str(self.workspace):
                        return process
        return None

    def ask(self, method: str, path: str, **values: Any) -> Any:
        answer = httpx.request(method, f"{self.api}{path}", timeout=30, **values)
        answer.raise_for_status()
        return answer.json()

    def start_run(self) -> str:
        found = self.ask("GET", "/deployments/name/lori/full-pipeline")
        created = self.ask("POST", f"/deployments/{found['id']}/create_flow_run", json={})
        return str(created["id"])

    def state(self, run: str) -> str:
        return str(self.ask("GET", f"/flow_runs/{run}")["state_type"])

    def end_of(self, run: str) -> str:
        """Wait until a run has ended; return its state."""
        return until(lambda: (s := self.state(run)) in FINAL and s, f"the end of run {run}")


FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


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


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """Start server, worker and MLflow over a fresh workspace; stop all of them afterwards."""
    workspace = make(folder / "workspace")
    ports = {"LORI_PREFECT_PORT": str(free_port()), "LORI_MLFLOW_PORT": str(free_port())}
    variables = ports | {"PREFECT_HOME": str(folder / "prefect"), "CUDA_VISIBLE_DEVICES": ""}
    made = Services(workspace, variables, f"http://127.0.0.1:{ports['LORI_PREFECT_PORT']}/api")
    made.tool("up")
    try:
        yield made
    finally:
        made.tool("down")


@dataclass
class Outcome:
    """What one round left."""

    kind: str
    moment: float
    first: str = ""
    again: str = ""
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        end = "; ".join(self.faults) or "clean"
        return f"{self.kind:7} after {self.moment:4.2f} s: {self.first} → {self.again}; {end}"


def strike(on: Services, kind: str, moment: float) -> Outcome:
    """Empty the workspace, run, kill at a moment, bring back, run again, look."""
    outcome = Outcome(kind, moment)
    empty(on.workspace)
    run = on.start_run()
    # The moment counts from where there is something to kill.
    find = {"stage": on.stage, "flow": on.flow}.get(kind, on.stage)
    until(find, f"a process of the {kind}")
    time.sleep(moment)
    kill(on, kind)
    bring_back(on, kind)
    outcome.first = on.end_of(run) if kind != "server" else settle(on, run)
    second = on.start_run()
    outcome.again = on.end_of(second)
    outcome.faults = list(faults(on, run))
    return outcome


def kill(on: Services, kind: str) -> None:
    """SIGKILL, as the kernel or a power supply would."""
    target = {
        "stage": on.stage,
        "flow": on.flow,
        "worker": lambda: on.process("worker"),
        "server": lambda: on.process("prefect"),
    }[kind]
    process = target() if kind != "stage" else until(target, "a stage", 30)
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait(30)


def bring_back(on: Services, kind: str) -> None:
    """Start again what a supervisor would."""
    if kind in ("worker", "server"):
        on.tool("restart", "worker" if kind == "worker" else "prefect")
        until(lambda: healthy(f"{on.api}/health"), "the server")


def settle(on: Services, run: str) -> str:
    """Return how a run ended whose server was away; what nobody could report is for the rerun."""
    until(lambda: on.flow() is None, "the end of the flow's process")
    return on.state(run)


def empty(workspace: Path) -> None:
    """Forget everything the pipeline made, and DVC's memory of it."""
    for name in ("out", "report", ".dvc/cache/runs"):
        shutil.rmtree(workspace / name, ignore_errors=True)
    (workspace / "dvc.lock").unlink(missing_ok=True)


def faults(on: Services, first: str) -> Iterator[str]:
    """Yield what should not be so after a killed run and its rerun."""
    until(lambda: on.flow() is None, "the end of the flow's process", 60)
    if on.stage() is not None:
        yield "a stage is alive"
    if outputs(on.workspace) != expected(on.workspace):
        yield "the outputs are not those of an undisturbed run"
    for run in on.ask("POST", "/flow_runs/filter", json={}):
        # The schedule's own runs wait for their time.
        if run["state_type"] not in (*FINAL, "SCHEDULED"):
            yield f"a flow run is {run['state_name']}"
    for run in on.ask("POST", "/task_runs/filter", json={}):
        if run["state_type"] == "RUNNING":
            yield f"the task run {run['name']} is running"
    for limit in on.ask("POST", "/v2/concurrency_limits/filter", json={}):
        if limit["active_slots"]:
            yield f"{limit['name']}: {limit['active_slots']} slots are taken"
    yield from open_runs(on.workspace)
    yield from locks(on.workspace)


def open_runs(workspace: Path) -> Iterator[str]:
    """Yield the runs that MLflow takes for running."""
    import sqlite3

    connection = sqlite3.connect(workspace / "mlflow.db")
    try:
        rows = connection.execute("select name, status from runs where status = 'RUNNING'")
        for name, status in rows.fetchall():
            yield f"MLflow's run {name} is {status}"
    finally:
        connection.close()


def locks(workspace: Path) -> Iterator[str]:
    """Yield locks that stay behind."""
    from flows.doctor import locks as findings
    from flows.lock import pipeline_runs

    if pipeline_runs(workspace):
        yield "the pipeline lock is held"
    for finding in findings(workspace, {}):
        if not finding.ok:
            yield finding.text


def outputs(workspace: Path) -> dict[str, bytes]:
    """Return every output's bytes, and the lock's."""
    names = sorted([*workspace.glob("out/*"), *workspace.glob("report/*")])
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in names}


_EXPECTED: dict[str, bytes] = {}


def expected(workspace: Path) -> dict[str, bytes]:
    """Return what an undisturbed run makes; made once, in a folder beside the workspace."""
    if not _EXPECTED:
        alone = make(workspace.parent / "alone")
        before = Path.cwd()
        os.chdir(alone)
        try:
            assert [reproduce(stage) for stage in STAGES] == [0] * len(STAGES)
        finally:
            os.chdir(before)
        _EXPECTED.update(outputs(alone))
    return _EXPECTED


def main() -> int:
    """Run the rounds and print one line each; the exit code says whether all were clean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    bad = 0
    with (
        tempfile.TemporaryDirectory(prefix="lori-crashes-") as folder,
        services(Path(folder)) as on,
    ):
        for number in range(args.rounds):
            outcome = strike(on, args.kinds[number % len(args.kinds)], draw.uniform(0, 4))
            bad += bool(outcome.faults) or outcome.again != "COMPLETED"
            print(f"{number + 1:3}/{args.rounds}  {outcome}", flush=True)
    print(f"{args.rounds} rounds, {bad} with faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
