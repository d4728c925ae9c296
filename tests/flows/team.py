"""The whole project on a team's services: `python team.py` runs the smoke profile through them.

PostgreSQL behind Prefect and MLflow, a password for Prefect, an S3 store behind DVC. A worker takes
the deployment's run; then a second clone with an empty cache gets every artifact and runs nothing.
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

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT))

from stores import postgres, s3  # noqa: E402

from flows.local_api import free_port  # noqa: E402

AUTH = "lori:secret-for-tests"
TOOLS = Path(sys.executable).parent


@dataclass
class Team:
    """A workspace, the services around it, and the variables that lead to them."""

    workspace: Path
    variables: Mapping[str, str]

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
        made.run("python", "-m", "flows.services", "up")
        stack.callback(made.run, "python", "-m", "flows.services", "down")
        yield made


def clone(work: Team, folder: Path) -> Path:
    """Return a second clone: what git would bring, and nothing of DVC's cache."""
    # The second clone stands where git would put it: without outputs, without a cache.
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=work.workspace, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((work.workspace / name).read_bytes())
    return folder


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


if __name__ == "__main__":
    main()
