"""How each service of `make up` is started: its command, its environment, and its socket.

What is secret, a password or a database's address, is handed over by the environment, which no
other user sees; it stands on no command line and in no file but those of mode 0600.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import access, private
from flows.access import HOST
from flows.environment import child_environment, prefect_home
from flows.server.guard import own_origins
from lori_core.core.errors import LoriError

POOL = "lori"
#: What flow runs may set of their job: nothing. Prefect's own template lets them name a command.
POOL_TEMPLATE = Path(__file__).with_name("work_pool.json")
PREFECT = str(Path(sys.executable).parent / "prefect")
#: Of the shell that typed `make up`: a service that is restarted from another shell needs them too.
SETTINGS = Path(".lori/services.env.json")
KEPT = re.compile(r"PREFECT_HOME|PREFECT_(API|SERVER)_DATABASE_\w+|MLFLOW_BACKEND_STORE_URI")
#: Without this MLflow keeps seven processes for jobs that nothing here submits.
LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def keep_settings(workspace: Path) -> None:
    """Note where this shell says that the databases are."""
    found = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    private.write_json(workspace / SETTINGS, found)


def restore_settings(workspace: Path) -> None:
    """Set the variables of this process to those that `keep_settings` noted."""
    try:
        kept = json.loads((workspace / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # of services that an older version started
    for name in [name for name in os.environ if KEPT.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(kept)


def forget_settings(workspace: Path) -> None:
    """Delete the files with secrets: nothing listens that they open."""
    for name in (SETTINGS, access.PASSWORD):
        (workspace / name).unlink(missing_ok=True)


def database(workspace: Path) -> str:
    """Return the address of MLflow's database; it may hold a password.

    Prefect's is named by PREFECT_API_DATABASE_CONNECTION_URL.
    """
    here = f"sqlite:///{(workspace / 'mlflow.db').resolve()}"
    return os.environ.get("MLFLOW_BACKEND_STORE_URI") or here


def environment(workspace: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment of Prefect's commands: where the server is, and its password."""
    home = prefect_home(workspace)
    if "PREFECT_HOME" in home:
        private.folder(Path(home["PREFECT_HOME"]))
    url = f"http://{HOST}:{ports['prefect']}/api"
    known = access.prefect_variables(access.password(workspace) or "")
    return {**child_environment(**home), "PREFECT_API_URL": url, **known}


def _command(name: str, worker: str) -> list[str]:
    """Return a service's command; it says nothing of passwords."""
    if name == "worker":
        return [PREFECT, "worker", "start", "--pool", POOL, "--name", worker]
    return [sys.executable, "-m", f"flows.server.{name}_server"]


def _variables(workspace: Path, name: str, ports: Mapping[str, int]) -> dict[str, str]:
    """Return what a service needs besides `environment`."""
    password = access.password(workspace) or ""
    if name == "prefect":
        return {
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own_origins(ports["prefect"])),
        }
    tracking = access.mlflow_variables(password)
    if name == "worker":
        url = f"http://{HOST}:{ports['mlflow']}"
        return {**tracking, "MLFLOW_TRACKING_URI": url, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    # Artifacts are written to the folder by whoever logs them, so that an experiment begun through
    # the server can be continued without it, and the other way round.
    artifacts = private.folder(workspace.resolve() / "mlruns").as_uri()
    return {
        **LEAN,
        **tracking,
        "MLFLOW_BACKEND_STORE_URI": database(workspace),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifacts,
    }


def start(
    workspace: Path, state: dict[str, Any], name: str, listener: socket.socket | None = None
) -> None:
    """Start a service, note it in `state`, and write that to the workspace.

    Args:
        workspace: where it runs.
        state: ports, the worker's name, and what was started before.
        name: `prefect`, `mlflow` or `worker`.
        listener: where a server answers; closed here.
    """
    import psutil

    log = private.folder(workspace / ".lori" / "logs") / f"{name}.log"
    command, ports = _command(name, state["worker"]), state["ports"]
    with open(log, "ab", opener=private.opener) as output:
        begin = output.tell()
        process = subprocess.Popen(
            command,
            cwd=workspace,
            env={**environment(workspace, ports), **_variables(workspace, name, ports)},
            stdin=listener.fileno() if listener else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # What flows make is the user's, and gets the modes that the user gives to files.
            umask=-1 if name == "worker" else private.UMASK,
        )
    if listener is not None:
        listener.close()
    created = psutil.Process(process.pid).create_time()
    entry = {"pid": process.pid, "created": created, "log": str(log), "log_start": begin}
    state["processes"][name] = entry
    private.write_json(workspace / access.STATE, state)


def tool(workspace: Path, ports: Mapping[str, int], *arguments: str) -> None:
    """Run a command to its end.

    Raises:
        LoriError: it failed; what it said last.
    """
    result = subprocess.run(
        list(arguments),
        cwd=workspace,
        env=environment(workspace, ports),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if result.returncode != 0:
        words = " ".join((result.stderr or result.stdout).split())[-300:]
        raise LoriError(f"{' '.join(arguments)} failed: {words}")
