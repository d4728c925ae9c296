"""Start each service of `make up`, with its command, its environment and its socket.

Secrets (passwords, database addresses) are passed in the environment, which other users cannot
read. They are on no command line, and only in files of mode 0600.
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
#: Lets flow runs override nothing of their job; Prefect's default template lets them set a command.
POOL_TEMPLATE = Path(__file__).with_name("work_pool.json")
PREFECT = str(Path(sys.executable).parent / "prefect")
#: Saved variables of the shell that ran `make up`, for a service restarted from another shell.
SETTINGS = Path(".lori/services.env.json")
SAVED = re.compile(r"PREFECT_HOME|PREFECT_(API|SERVER)_DATABASE_\w+|MLFLOW_BACKEND_STORE_URI")
#: Without this MLflow starts seven more processes, for jobs that nothing here submits.
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def save_settings(workspace: Path) -> None:
    """Save the environment variables that name the databases."""
    values = {name: value for name, value in os.environ.items() if SAVED.fullmatch(name)}
    private.write_json(workspace / SETTINGS, values)


def restore_settings(workspace: Path) -> None:
    """Set this process's variables to those that `save_settings` saved."""
    try:
        values = json.loads((workspace / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # the services were started by an older version
    for name in [name for name in os.environ if SAVED.fullmatch(name)]:
        del os.environ[name]
    os.environ.update(values)


def delete_settings(workspace: Path) -> None:
    """Delete the files with secrets after the services have ended."""
    for name in (SETTINGS, access.PASSWORD):
        (workspace / name).unlink(missing_ok=True)


def database(workspace: Path) -> str:
    """Return the address of MLflow's database, which may hold a password.

    The address of Prefect's database is PREFECT_API_DATABASE_CONNECTION_URL.
    """
    here = f"sqlite:///{(workspace / 'mlflow.db').resolve()}"
    return os.environ.get("MLFLOW_BACKEND_STORE_URI") or here


def environment(workspace: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment of Prefect's commands, with the server's address and password."""
    home = prefect_home(workspace)
    if "PREFECT_HOME" in home:
        private.folder(Path(home["PREFECT_HOME"]))
    url = f"http://{HOST}:{ports['prefect']}/api"
    known = access.prefect_variables(access.password(workspace) or "")
    return {**child_environment(**home), "PREFECT_API_URL": url, **known}


def _command(name: str, worker: str) -> list[str]:
    """Return a service's command line, which holds no password."""
    if name == "worker":
        return [PREFECT, "worker", "start", "--pool", POOL, "--name", worker]
    return [sys.executable, "-m", f"flows.server.{name}_server"]


def _variables(workspace: Path, name: str, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables that a service needs besides `environment`."""
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
    # Clients write artifacts to the folder themselves, so that an experiment can be continued
    # both with the server and without it.
    artifacts = private.folder(workspace.resolve() / "mlruns").as_uri()
    return {
        **NO_JOBS,
        **tracking,
        "MLFLOW_BACKEND_STORE_URI": database(workspace),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifacts,
    }


def start(
    workspace: Path, state: dict[str, Any], name: str, listener: socket.socket | None = None
) -> None:
    """Start a service, add it to `state`, and write `state` to the workspace.

    Args:
        workspace: the folder it runs in.
        state: the ports, the worker's name, and the processes started before.
        name: `prefect`, `mlflow` or `worker`.
        listener: the server's listening socket; closed here after the server has inherited it.
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
            # Files that flows write get the modes of the user's own umask.
            umask=-1 if name == "worker" else private.UMASK,
        )
    if listener is not None:
        listener.close()
    created = psutil.Process(process.pid).create_time()
    entry = {"pid": process.pid, "created": created, "log": str(log), "log_start": begin}
    state["processes"][name] = entry
    private.write_json(workspace / access.STATE, state)


def tool(workspace: Path, ports: Mapping[str, int], *arguments: str) -> None:
    """Run a command of Prefect and wait until it ends.

    Raises:
        LoriError: the command failed; the message ends with the command's last output.
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
        output = " ".join((result.stderr or result.stdout).split())[-300:]
        raise LoriError(f"{' '.join(arguments)} failed: {output}")
