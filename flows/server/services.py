"""The services of `make up`: a Prefect server, a worker and MLflow, on loopback.

`python -m flows.server.services up|down|restart NAME|status`. Everything listens on 127.0.0.1 only;
process ids and ports are kept in `.lori/services.json`, logs in `.lori/logs/`. While the services
are up, the file `prefect.toml` tells Prefect's own commands, typed in this folder, where the server
is.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows import machine
from flows.environment import child_environment, loopback_without_proxy, prefect_home
from flows.server.local_api import Log, healthy, unhealthy, wait_until_healthy
from flows.server.processes import end, family, process_of
from lori_core.errors import InputError, LoriError
from lori_core.files import write_json, write_text

HOST = "127.0.0.1"
POOL = "lori"
DEPLOYMENT = "lori/full-pipeline"
#: Without this MLflow keeps seven processes for jobs that nothing here submits.
LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
#: Prefect's own servers.
CLOUD = "prefect.cloud"
MARK = "# Written by `make up`, removed by `make down`."


def up(workspace: Path) -> None:
    """Start everything, wait until it is healthy, deploy, and say what to type next.

    Raises:
        InputError: a port is taken, or not a port; the services are up already; or there is a
            `prefect.toml` of the user's.
        LoriError: a service did not come up; all of them are stopped again.
    """
    ports = {
        "prefect": _port("LORI_PREFECT_PORT", 4200),
        "mlflow": _port("LORI_MLFLOW_PORT", 5000),
    }
    if ports["prefect"] == ports["mlflow"]:
        raise InputError(
            f"LORI_PREFECT_PORT and LORI_MLFLOW_PORT are both {ports['mlflow']}; set one to another"
        )
    machine.check_for_services(workspace)
    if any(status(workspace).values()):
        raise InputError("the services are up already; `make down` stops them")
    down(workspace)
    settings = workspace / "prefect.toml"
    if settings.exists():
        raise InputError(
            f"{settings}: `make up` did not write it and would replace it; move it away, or set "
            "its keys as Prefect's environment variables"
        )
    for variable, port in (
        ("LORI_PREFECT_PORT", ports["prefect"]),
        ("LORI_MLFLOW_PORT", ports["mlflow"]),
    ):
        _check_free(variable, port)
    typed, needed = os.environ.get("no_proxy"), loopback_without_proxy(os.environ).get("no_proxy")
    try:
        _start_all(workspace, ports)
    except BaseException:
        down(workspace)
        raise
    if needed not in (None, typed):
        print(f"proxy    for commands that you type: export no_proxy={needed}")
    print(
        f"Prefect  http://{HOST}:{ports['prefect']}\n"
        f"MLflow   http://{HOST}:{ports['mlflow']}\n"
        f"next     prefect deployment run {DEPLOYMENT} --watch   (in this folder)\n"
        "stop     make down"
    )


def down(workspace: Path) -> int:
    """Stop everything that `up` started, children and grandchildren; return how many ended."""
    state = _read(workspace)
    ended = end(family(state))
    _state_file(workspace).unlink(missing_ok=True)
    settings = workspace / "prefect.toml"
    if settings.exists() and settings.read_text(encoding="utf-8").startswith(MARK):
        settings.unlink()
    return ended


def status(workspace: Path) -> dict[str, bool]:
    """Return each service and whether it is alive; empty if none was started."""
    processes = _read(workspace).get("processes", {})
    return {name: process_of(entry) is not None for name, entry in processes.items()}


def prefect_url(workspace: Path) -> str | None:
    """Return the API of the Prefect server that `up` started, if its process is alive."""
    state = _read(workspace)
    if process_of(state.get("processes", {}).get("prefect")) is None:
        return None
    return f"http://{HOST}:{state['ports']['prefect']}/api"


def running_api(workspace: Path) -> str | None:
    """Return the API of the Prefect server that a run uses; `None` where it brings its own.

    Raises:
        InputError: a server is named, or was started here, and does not answer.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named and (urlsplit(named).hostname or "").endswith(CLOUD):
        return named  # its health is asked in another way
    url = named or prefect_url(workspace)
    reason = unhealthy(f"{url}/health") if url else ""
    if not reason:
        return url
    if named:
        raise InputError(
            f"PREFECT_API_URL: no Prefect server answers at {url} ({reason}); start it, or unset "
            "the variable: a run then brings its own"
        )
    raise InputError(
        f"the Prefect server of `make up` does not answer at {url} ({reason}); make down; make up"
    )


def credentials() -> dict[str, str]:
    """Return the headers by which a Prefect server knows its user, if any are needed."""
    secret, key = os.environ.get("PREFECT_API_AUTH_STRING"), os.environ.get("PREFECT_API_KEY")
    if secret:
        return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    return {"Authorization": f"Bearer {key}"} if key else {}


def restart(workspace: Path, name: str) -> None:
    """Start one service again that ended by itself; what still runs is stopped first.

    Raises:
        InputError: nothing of that name was started.
    """
    state = _read(workspace)
    entry = state.get("processes", {}).get(name)
    if entry is None:
        known = ", ".join(state.get("processes", {})) or "none: make up"
        raise InputError(f"no service {name!r} was started here (there are: {known})")
    process = process_of(entry)
    if process is not None:
        end([process])
    # What it has started may still be at work, and `down` must find it.
    state.setdefault("former", []).append({"pid": entry["pid"], "created": entry["created"]})
    _start(workspace, state, name, entry["command"], entry["variables"])


def _start_all(workspace: Path, ports: Mapping[str, int]) -> None:
    from flows.tracking.mlflow_store import prepare

    api = f"http://{HOST}:{ports['prefect']}/api"
    # MLflow's own variable; Prefect's database is named by PREFECT_API_DATABASE_CONNECTION_URL.
    here = f"sqlite:///{(workspace / 'mlflow.db').resolve()}"
    database = os.environ.get("MLFLOW_BACKEND_STORE_URI", here)
    state: dict[str, Any] = {"ports": dict(ports), "processes": {}}
    prefect = str(Path(sys.executable).parent / "prefect")
    own = {"PREFECT_API_URL": api}

    server = [prefect, "server", "start", "--host", HOST, "--port", str(ports["prefect"])]
    _start(workspace, state, "prefect", server, own)
    prepare(database)
    _start(workspace, state, "mlflow", _mlflow_command(workspace, database, ports["mlflow"]), LEAN)
    _wait(state, "prefect", f"{api}/health")
    write_text(workspace / "prefect.toml", f'{MARK}\n[api]\nurl = "{api}"\n')
    _tool(workspace, own, prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    _tool(workspace, own, prefect, "--no-prompt", "deploy", "--all")
    _tool(workspace, own, sys.executable, "-m", "flows.server.automations")
    _wait(state, "mlflow", f"http://{HOST}:{ports['mlflow']}/health")
    worker = [prefect, "worker", "start", "--pool", POOL, "--name", f"lori-{os.getpid()}"]
    tracking = f"http://{HOST}:{ports['mlflow']}"
    quick = {"MLFLOW_TRACKING_URI": tracking, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    _start(workspace, state, "worker", worker, {**own, **quick})
    workers = f"{api}/work_pools/{POOL}/workers/filter"
    _wait(state, "worker", workers, partial(_is_online, worker[-1]))


def _mlflow_command(workspace: Path, database: str, port: int) -> Sequence[str]:
    artifacts = (workspace / "mlruns").resolve().as_uri()
    # Artifacts are written to the folder by whoever logs them, so that an experiment begun through
    # the server can be continued without it, and the other way round.
    return [
        sys.executable, "-m", "mlflow", "server",
        "--host", HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", database,
        "--no-serve-artifacts", "--default-artifact-root", artifacts,
    ]  # fmt: skip


def _start(
    workspace: Path,
    state: dict[str, Any],
    name: str,
    command: Sequence[str],
    variables: Mapping[str, str],
) -> None:
    import psutil

    log = workspace / ".lori" / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            list(command),
            cwd=workspace,
            env={**child_environment(**prefect_home(workspace)), **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    state["processes"][name] = {
        "pid": process.pid,
        "created": created,
        "log": str(log),
        "log_start": start,
        "command": list(command),
        "variables": dict(variables),
    }
    write_json(_state_file(workspace), state)


def _wait(
    state: Mapping[str, Any], name: str, url: str, answers: Callable[[str], bool] = healthy
) -> None:
    entry = state["processes"][name]
    log = Log(Path(entry["log"]), entry["log_start"])
    wait_until_healthy(url, name, log, lambda: process_of(entry) is not None, answers=answers)


def _is_online(worker: str, url: str) -> bool:
    """Return whether the server, asked at `url`, has heard of a worker by its name."""
    import httpx

    try:
        answer = httpx.post(url, json={}, headers=credentials(), timeout=2.0)
    except httpx.HTTPError:
        return False
    return answer.is_success and worker in {known["name"] for known in answer.json()}


def _tool(workspace: Path, variables: Mapping[str, str], *arguments: str) -> None:
    """Run a command to its end."""
    result = subprocess.run(
        list(arguments),
        cwd=workspace,
        env={**child_environment(**prefect_home(workspace)), **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if result.returncode != 0:
        words = " ".join((result.stderr or result.stdout).split())[-300:]
        raise LoriError(f"{' '.join(arguments)} failed: {words}")


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise InputError(f"{variable}={text!r} is not a port (allowed: 1 to 65535)")
    return int(text)


def _check_free(variable: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"port {port} is not free ({error.strerror}); set {variable} to another"
            ) from None


def _state_file(workspace: Path) -> Path:
    return workspace / ".lori" / "services.json"


def _read(workspace: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_file(workspace).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def main(arguments: Sequence[str]) -> int:
    """Run `up`, `down`, `restart` or `status` in the current folder and return the exit code."""
    workspace = Path.cwd()
    try:
        match list(arguments):
            case ["up"]:
                up(workspace)
            case ["down"]:
                print(f"stopped {down(workspace)} processes")
            case ["restart", name]:
                restart(workspace, name)
            case ["status"]:
                for name, alive in status(workspace).items():
                    print(f"{name:8} {'up' if alive else 'gone'}")
            case _:
                module = "python -m flows.server.services"
                raise InputError(f"usage: {module} up|down|restart NAME|status")
    except LoriError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
