"""How long a stage takes to start, and what a first run does before its first stage.

* From the start of a stage's process, which is when its Prefect task starts it, until the stage's
  own first row: DVC's checks, the fork, the command line, `params.yaml`. With a fork server that
  has imported everything, and without a server. The stage is `calibrate` of the smoke profile.
* The modules in the process that waits for a forked stage.
* The creation of MLflow's and Prefect's SQLite databases: by all migrations, and as a copy of the
  empty database that the user's cache keeps. These are CPU seconds of the whole process, with its
  imports; on a shared machine they are the better measure.

    python -m benchmarks.starting
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.adapters import show
from flows.environment import child_environment
from flows.execution.fork_server import serving
from flows.versioning import new_workspace
from lori_core.core.processes import forked
from lori_core.core.tracking import ROWS_VARIABLE

SMOKE = Path(__file__).parents[1] / "profiles" / "smoke.yaml"
#: Stages that need nothing but data; each is started once, since a second start would do nothing.
STAGES = {"with a fork server": ("nlu", "math", "code"), "without": ("safety",)}
#: Programs that create a database, by the name of the library.
CREATE = {
    "MLflow": "from flows.tracking.mlflow_store import prepare; prepare('sqlite:///'+{path!r})",
    "Prefect": "from flows.server.prefect_server import create_database; create_database()",
}
#: Prints the modules of the process that waits for `lori stage --help` in a forked process.
COUNT = (
    "import sys; from lori_cli import main; sys.argv[1:] = ['stage', '--help']\n"
    "try: main()\n"
    "finally: print(len(sys.modules))"
)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Measure in a scratch folder; return a row for each measurement."""
    return [*_stages(folder / "workspace"), *_databases(folder)]


def _stages(workspace: Path) -> list[dict[str, Any]]:
    workspace.mkdir()
    new_workspace.make(workspace, SMOKE.read_text(encoding="utf-8"), "smoke\n")
    _call(["-m", "lori_cli", "pull"], workspace)
    os.environ.pop(forked.VARIABLE, None)
    result = []
    with serving(workspace):
        # The first command waits until the server has imported everything.
        started = time.perf_counter()
        modules = int(_call(["-c", COUNT], workspace).split()[-1])
        result.append(
            {"what": "the fork server's imports", "value": time.perf_counter() - started,
             "unit": "s"}
        )  # fmt: skip
        forks = [_first_row(workspace, task) for task in STAGES["with a fork server"]]
    alone = [_first_row(workspace, task) for task in STAGES["without"]]
    return [
        *result,
        {"what": "until a stage's first row, with a fork server", "value": sorted(forks)[1],
         "unit": "s", "goal": "<= 1.0"},
        {"what": "until a stage's first row, without", "value": alone[0], "unit": "s"},
        {"what": "modules in the process that waits", "value": float(modules), "unit": ""},
    ]  # fmt: skip


def _first_row(workspace: Path, task: str) -> float:
    """Run `calibrate` for a task as the flow does; return the seconds until its first row."""
    rows = workspace / ".lori" / "rows" / f"{task}.jsonl"
    started = time.time()
    words = ["lori_core.core.processes.forked", "flows.execution.stage_process"]
    _call(["-m", *words, f"calibrate@{task}"], workspace, {ROWS_VARIABLE: str(rows)})
    with rows.open(encoding="utf-8") as file:
        return float(json.loads(file.readline())["time"]) - started


def _databases(folder: Path) -> list[dict[str, Any]]:
    result = []
    for library, program in CREATE.items():
        for way in ("migrated", "copied"):
            home = folder / f"{library}-{way}"
            home.mkdir()
            before = _children()
            variables = {"LORI_CACHE": str(folder / "cache"), "PREFECT_HOME": str(home)}
            _call(["-c", program.format(path=str(home / "mlflow.db"))], home, variables)
            result.append(
                {"what": f"{library}'s database, {way}", "value": _children() - before,
                 "unit": "s CPU"}
            )  # fmt: skip
    return result


def _children() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _call(words: list[str], folder: Path, variables: Mapping[str, str] | None = None) -> str:
    environment = child_environment(CUDA_VISIBLE_DEVICES="", **(variables or {}))
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder, env=dict(environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]  # noqa: S101
    return done.stdout


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lori-bench-") as name:
        show(rows(Path(name)))
