"""The whole project on a team's services: `python team.py` runs the smoke profile through them.

PostgreSQL behind Prefect and MLflow, a password for Prefect, an S3 store behind DVC. A worker takes
the deployment's run; then a second clone with an empty cache gets every artifact and runs nothing.
At last the clock starts two runs, and a run is cancelled.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT))

from stores import postgres, s3  # noqa: E402
from watching import FINAL, Server, locks, processes, until  # noqa: E402

from flows.server.local_api import free_port  # noqa: E402

AUTH = "lori:secret-for-tests"
TOOLS = Path(sys.executable).parent


@dataclass
class Team:
    """A workspace, the services around it, and the variables that lead to them."""

    workspace: Path
    variables: Mapping[str, str]

    @property
    def server(self) -> Server:
        """Prefect's server."""
        return Server(f"http://127.0.0.1:{self.variables['LORI_PREFECT_PORT']}/api", AUTH)

    def run(self, *command: str, folder: Path | None = None) -> str:
        """Run a command of the environment in the workspace, or in another folder."""
        done = subprocess.run(
            [str(TOOLS / command[0]), *command[1:]],
            cwd=folder or self.workspace,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{' '.join(command)}: {said[-4000:]}"
        return said


@contextlib.contextmanager
def team(folder: Path, workspace: Path) -> Iterator[Team]:
    """Start PostgreSQL, S3, Prefect, MLflow and a worker around a workspace."""
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(postgres(folder, ["prefect", "mlflow"]))
        store = stack.enter_context(s3(["lori-dvc"]))
        variables = store | {
            "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            # The clone's own code, also in commands that lie elsewhere.
            "PYTHONPATH": str(workspace),
            "OMP_NUM_THREADS": "1",
            "LORI_CACHE": os.environ.get("LORI_CACHE", str(folder / "cache")),
            "PREFECT_HOME": str(folder / "prefect"),
            "LORI_PREFECT_PORT": str(free_port()),
            "LORI_MLFLOW_PORT": str(free_port()),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{where}/prefect",
            "PREFECT_SERVER_API_AUTH_STRING": AUTH,
            "PREFECT_API_AUTH_STRING": AUTH,
            "MLFLOW_BACKEND_STORE_URI": f"postgresql://{where}/mlflow",
            "CUDA_VISIBLE_DEVICES": "",
        }
        made = Team(workspace, variables)
        made.run("dvc", "remote", "add", "-q", "-f", "-d", "store", "s3://lori-dvc")
        made.run("python", "-m", "flows.server.services", "up")
        stack.callback(made.run, "python", "-m", "flows.server.services", "down")
        yield made


def clone(work: Team, folder: Path) -> Path:
    """Commit what a run left for git, and return a second clone: nothing of DVC's cache."""
    git = ["git", "-c", "user.name=team", "-c", "user.email=team@localhost"]
    for command in (["add", "-A"], ["commit", "-q", "-m", "A run"]):
        subprocess.run([*git, *command], cwd=work.workspace, check=True)
    subprocess.run(["git", "clone", "-q", str(work.workspace), str(folder)], check=True)
    return folder


def by_schedule(work: Team) -> None:
    """Let the clock start `lori/retrain` each minute: the first run has something to do."""
    deployment = work.server.deployment("retrain")
    schedule = {
        "schedule": {"cron": "* * * * *", "timezone": "Etc/UTC"},
        "parameters": {"overrides": ["tasks.math.training.learning_rate=2e-3"], "gate": True},
    }
    path = f"/deployments/{deployment}/schedules"
    (made,) = work.server.ask("POST", path, json=[schedule])
    wanted = {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}

    def ended() -> list[dict[str, Any]]:
        runs = work.server.ask("POST", "/flow_runs/filter", json=wanted)
        return [run for run in runs if run["state_type"] in FINAL and run["auto_scheduled"]]

    first, second = until(lambda: len(ended()) >= 2 and ended()[:2], "two runs on schedule", 3600)
    work.server.ask("DELETE", f"{path}/{made['id']}")
    for run in (first, second):
        began, took = run["start_time"], run["total_run_time"]
        print(f"on schedule: {began} {run['state_type']} {run['state']['message']}, {took:.0f} s")
    assert first["state"]["message"] in ("promoted", "not promoted"), first
    assert second["state"]["message"] == "nothing changed", second


def cancelled(work: Team) -> None:
    """Cancel a run while a stage is at work, as the UI does, and look at what is left."""
    run = work.server.start_run(overrides=["tasks.math.training.learning_rate=3e-3"])
    until(lambda: processes(work.workspace, "flows.execution.stage_process"), "a stage")
    work.run("prefect", "flow-run", "cancel", run)
    began = time.monotonic()
    assert work.server.end_of(run) == "CANCELLED"
    at_work = (
        "prefect flow-run execute",
        "flows.execution.stage_process",
        "lori stage",
        "lori_core",
    )
    until(lambda: not processes(work.workspace, *at_work), "the end of all processes", 60)
    print(f"cancelled: no process is left after {time.monotonic() - began:.1f} s")
    left = [*work.server.unfinished(), *open_runs(work.variables), *locks(work.workspace)]
    assert not left, left


def open_runs(variables: Mapping[str, str]) -> list[str]:
    """Return the runs that MLflow takes for running."""
    import psycopg2

    with contextlib.closing(psycopg2.connect(variables["MLFLOW_BACKEND_STORE_URI"])) as connection:
        cursor = connection.cursor()
        cursor.execute("select name from runs where status = 'RUNNING'")
        return [f"MLflow's run {name} is running" for (name,) in cursor.fetchall()]


def main() -> None:
    """Run the smoke profile, share it, and clone it."""
    with tempfile.TemporaryDirectory(prefix="lori-team-") as name:
        folder = Path(name)
        workspace = folder / "project"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(workspace)], check=True)
        with team(folder, workspace) as work:
            print("up", flush=True)
            started = time.monotonic()
            parameters = ["--param", "profile=smoke"]
            print(
                work.run(
                    "prefect", "deployment", "run", "lori/full-pipeline", *parameters, "--watch"
                )
            )
            print(f"completed in {time.monotonic() - started:.0f} s", flush=True)
            print(work.run("lori", "doctor"))
            work.run("dvc", "push", "-q", "--run-cache")
            second = clone(work, folder / "second")
            work.run("dvc", "pull", folder=second)
            print(work.run("lori", "plan", folder=second), flush=True)
            said = work.run("lori", "run", folder=second)
            assert "all unchanged: nothing to run" in said, said
            print(said)
            by_schedule(work)
            cancelled(work)


if __name__ == "__main__":
    main()
