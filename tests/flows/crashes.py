"""Kills parts of a running pipeline at random moments and checks what is left: `python crashes.py`.

A Prefect server, a worker and MLflow, as `make up` starts them, over a workspace whose stages take
half a second. Each round empties the workspace, starts the deployment, kills something at a moment
drawn from a seeded stream, brings back what a supervisor would, and runs the deployment again:

* stage: the process that `dvc.yaml` starts;
* flow: the process of the flow, under the worker;
* worker: the process that polls for work;
* server: Prefect's server;
* node: one of the two nodes of a Ray cluster, for which all of it moves to a network of its own;
* helper: the process that has imported everything, from which stages are forked;
* client: the process that waits for a forked one, and stands for it;
* cancel: nothing is killed, but the run is cancelled, as in the UI.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT))

from ray_cluster import ALONE, Nodes, cluster, environment  # noqa: E402
from watching import Server, flows, locks, processes, until  # noqa: E402

from flows import access  # noqa: E402
from flows.execution.stage_process import reproduce  # noqa: E402
from flows.server.local_api import free_port, healthy  # noqa: E402

ZOMBIE = psutil.STATUS_ZOMBIE
KINDS = ("stage", "flow", "worker", "server", "node", "helper", "client", "cancel")
HELPER, CLIENT = "flows.execution.fork_server", "lori_core.core.processes.forked"
STAGES = ("prepare", "train@a", "train@b", "train@c", "report")

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
    tasks = folder / "flows" / "execution" / "tasks.py"
    # There is no data to pull; the rest of the flow is as it is.
    tasks.write_text(tasks.read_text().replace('("lori_cli", "pull")', '("platform",)'))
    flow = folder / "flows" / "pipeline.py"
    # And the toy's params.yaml is none of ours.
    configure = "            _configure(workspace, profile, overrides or [], logger)\n"
    assert configure in flow.read_text()
    flow.write_text(flow.read_text().replace(configure, ""))
    server = folder / "flows" / "execution" / "fork_server.py"
    # Stages here import next to nothing, so the helper is there as soon as they are.
    text = re.sub(
        r"(?s)^MODULES = \(.*?^\)", "MODULES = ('dvc.repo',)", server.read_text(), flags=re.M
    )
    server.write_text(text)
    (folder / "toy.py").write_text(WORK)
    (folder / "dvc.yaml").write_text(DVC.format(python=sys.executable))
    (folder / "data" / "in.txt").write_text("one two three\n")
    (folder / "params.yaml").write_text("tracking: {experiment: crashes}\n")
    return folder


@dataclass
class Services:
    """The services of one workspace, how to bring one back, and a Ray cluster where it is used."""

    workspace: Path
    variables: Mapping[str, str]
    server: Server
    nodes: Nodes | None = None

    def tool(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "flows.server.services", *arguments],
            cwd=self.workspace,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def process(self, name: str) -> psutil.Process | None:
        """Return the process of a service, if it lives."""
        from flows.server.processes import process_of

        entry = access.state(self.workspace)["processes"][name]
        found: psutil.Process | None = process_of(entry)
        return found

    def flows(self) -> list[psutil.Process]:
        """Return the processes of flows."""
        return flows(self.workspace)

    def stages(self) -> list[psutil.Process]:
        """Return the processes of stages."""
        return processes(self.workspace, " toy.py ")

    def engine(self, name: str) -> None:
        """Write which engine the next run uses."""
        address = f", ray_address: '{self.nodes.address}'" if self.nodes else ""
        (self.workspace / "params.yaml").write_text(
            "tasks: {a: {}, b: {}, c: {}}\n"
            f"execution: {{retries: 2, engine: {name}{address if name == 'ray' else ''}}}\n"
            "tracking: {experiment: crashes}\n"
        )


@contextmanager
def services(folder: Path, *, ray: bool) -> Iterator[Services]:
    """Start server, worker and MLflow over a fresh workspace; stop all of them afterwards."""
    workspace = make(folder / "workspace")
    ports = {"LORI_PREFECT_PORT": str(free_port()), "LORI_MLFLOW_PORT": str(free_port())}
    variables = ports | {"PREFECT_HOME": str(folder / "prefect"), "CUDA_VISIBLE_DEVICES": ""}
    url = f"http://127.0.0.1:{ports['LORI_PREFECT_PORT']}/api"
    with ExitStack() as stack:
        if ray:
            os.environ.update(environment(folder))
        made = Services(workspace, variables, Server(url))
        made.tool("up")
        password = access.password(workspace) or ""
        made.server = Server(url, password)
        stack.callback(made.tool, "down")
        if ray:
            # For the processes of the nodes.
            os.environ.update({"PREFECT_API_URL": url, **access.prefect_variables(password)})
            made.nodes = stack.enter_context(cluster(dict(os.environ)))
        yield made


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
        return f"{self.kind:7} after {self.moment:5.2f} s: {self.first} → {self.again}; {end}"


def strike(on: Services, kind: str, moment: float) -> Outcome:
    """Empty the workspace, run, kill at a moment, bring back, run again, look."""
    outcome = Outcome(kind, moment)
    empty(on.workspace)
    on.engine("ray" if kind == "node" else "local")
    run = on.server.start_run()
    # The moment counts from where there is something to kill.
    until(on.flows if kind == "flow" else on.stages, f"a process of the {kind}")
    time.sleep(moment)
    kill(on, kind, run)
    bring_back(on, kind)
    outcome.first = on.server.end_of(run) if kind != "server" else settle(on, run)
    if kind == "cancel":
        # Before anything else runs here: cancelling itself leaves nothing behind.
        outcome.faults = list(left(on))
    second = on.server.start_run()
    outcome.again = on.server.end_of(second)
    outcome.faults += left(on)
    if outputs(on.workspace) != expected(on.workspace):
        outcome.faults.append("the outputs are not those of an undisturbed run")
    return outcome


def kill(on: Services, kind: str, run: str) -> None:
    """SIGKILL, as the kernel or a power supply would; or cancel, as a person in the UI."""
    if kind == "cancel":
        state = {"type": "CANCELLING"}
        on.server.ask("POST", f"/flow_runs/{run}/set_state", json={"state": state})
        return
    target: psutil.Process | None
    if kind == "stage":
        target = until(on.stages, "a stage", 30)[0]
    elif kind == "helper":
        # What is forked from it has its command line, too.
        found = processes(on.workspace, HELPER)
        target = min(found, key=lambda process: process.create_time(), default=None)
    elif kind == "client":
        target = next(iter(processes(on.workspace, CLIENT)), None)
    elif kind == "flow":
        target = next(iter(on.flows()), None)
    elif kind == "node":
        assert on.nodes is not None
        target = on.nodes.raylets[1]
    else:
        target = on.process("prefect" if kind == "server" else kind)
    if target is not None:
        with suppress(psutil.NoSuchProcess):
            target.kill()
            # A killed helper remains a zombie until its flow ends.
            until(lambda: not target.is_running() or target.status() == ZOMBIE, "its end", 30)


def bring_back(on: Services, kind: str) -> None:
    """Start again what a supervisor would."""
    if kind in ("worker", "server"):
        on.tool("restart", "worker" if kind == "worker" else "prefect")
        until(lambda: healthy(f"{on.server.url}/health"), "the server")
    if kind == "node":
        assert on.nodes is not None
        on.nodes.add()


def settle(on: Services, run: str) -> str:
    """Return how a run ended whose server was away; what nobody could report is for the rerun."""
    until(lambda: not on.flows(), "the end of the flow's process")
    return on.server.state(run)


def empty(workspace: Path) -> None:
    """Forget everything the pipeline made, and DVC's memory of it."""
    for name in ("out", "report", ".dvc/cache/runs"):
        shutil.rmtree(workspace / name, ignore_errors=True)
    (workspace / "dvc.lock").unlink(missing_ok=True)


def left(on: Services) -> Iterator[str]:
    """Yield what should not be there after a run has ended."""
    until(lambda: not on.flows(), "the end of the flow's process", 60)
    if on.stages():
        yield "a stage is alive"
    if processes(on.workspace, HELPER):
        yield "a process that was forked, or forks, is alive"
    yield from on.server.unfinished()
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
    ray = "node" in args.kinds
    if ray and "LORI_ALONE" not in os.environ:
        env = {**os.environ, "LORI_ALONE": "1"}
        again = [*ALONE, sys.executable, *sys.argv]
        return subprocess.run(again, env=env, check=False).returncode
    draw = random.Random(args.seed)
    bad = 0
    with (
        tempfile.TemporaryDirectory(prefix="lori-crashes-") as folder,
        services(Path(folder), ray=ray) as on,
    ):
        for number in range(args.rounds):
            kind = args.kinds[number % len(args.kinds)]
            # Processes of a Ray cluster take some seconds to start between two stages.
            outcome = strike(on, kind, draw.uniform(0, 12 if kind == "node" else 4))
            wrong = outcome.again != "COMPLETED" or (kind == "cancel") != (
                outcome.first == "CANCELLED"
            )
            bad += bool(outcome.faults) or wrong
            print(f"{number + 1:3}/{args.rounds}  {outcome}", flush=True)
    print(f"{args.rounds} rounds, {bad} with faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
