"""The services of `make up`: a Prefect server, a worker and MLflow, on loopback.

`python -m flows.server.services up|down|restart NAME|status`. Everything listens on 127.0.0.1 only.
Process ids and ports are in `.lori/services.json`, logs in `.lori/logs/`. All users of the machine
and all pages in a browser can reach loopback, so the servers require the password in
`.lori/password`. While the services are up, the file `prefect.toml` gives the server's address and
password to Prefect's commands that are run in this folder.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows import access, machine, private
from flows.access import HOST
from flows.environment import loopback_without_proxy
from flows.server import service
from flows.server.listening import listen
from flows.server.local_api import Log, healthy, unhealthy, wait_until_healthy
from flows.server.processes import end, family, process_of
from lori_core.core import faults
from lori_core.core.errors import InputError, one_line
from lori_core.core.redaction import redact

DEPLOYMENT = "lori/full-pipeline"
#: The domain of Prefect Cloud.
CLOUD = "prefect.cloud"
MARK = "# Written by `make up`, removed by `make down`."
PORTS = {"prefect": ("LORI_PREFECT_PORT", 4200), "mlflow": ("LORI_MLFLOW_PORT", 5000)}


def up(workspace: Path) -> None:
    """Start all services, wait until they are healthy, deploy the flow, and print what to do next.

    Raises:
        InputError: a port is taken or invalid; the services are up already; or the workspace has
            a `prefect.toml` that `make up` did not write.
        LoriError: a service did not start; all services are stopped again.
    """
    ports = {name: _port(variable, default) for name, (variable, default) in PORTS.items()}
    if ports["prefect"] == ports["mlflow"]:
        raise InputError(
            f"LORI_PREFECT_PORT and LORI_MLFLOW_PORT are both {ports['mlflow']}; set one to another"
        )
    password = _new_password()
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
    typed, needed = os.environ.get("no_proxy"), loopback_without_proxy(os.environ).get("no_proxy")
    with ExitStack() as stack:
        listeners = {
            name: stack.enter_context(listen(ports[name], variable))
            for name, (variable, _) in PORTS.items()
        }
        try:
            private.tighten(workspace)
            access.write_password(workspace, password)
            _start_all(workspace, ports, listeners)
        except BaseException:
            down(workspace)
            raise
    own = {"PREFECT_API_URL": prefect_url(workspace), access.AUTH_STRING: password}
    for name, value in own.items():
        if os.environ.get(name) not in (None, "", value):
            print(f"warning  {name} belongs to another server: unset it for commands here")
    if needed not in (None, typed):
        print(f"proxy    for commands in your shell: export no_proxy={needed}")
    print(
        f"Prefect  http://{HOST}:{ports['prefect']}\n"
        f"MLflow   http://{HOST}:{ports['mlflow']}/#/experiments?workflowType=machine_learning\n"
        f"password in {access.PASSWORD}: the whole line for Prefect, user:password for MLflow\n"
        f"next     prefect deployment run {DEPLOYMENT} --watch   (in this folder)\n"
        "stop     make down"
    )


def down(workspace: Path) -> int:
    """Stop everything that `up` started, with all descendants; return the number of processes."""
    ended = end(family(access.state(workspace)))
    (workspace / access.STATE).unlink(missing_ok=True)
    service.delete_settings(workspace)
    settings = workspace / "prefect.toml"
    if settings.exists() and settings.read_text(encoding="utf-8").startswith(MARK):
        settings.unlink()
    return ended


def status(workspace: Path) -> dict[str, bool]:
    """Return for each service whether its process is alive; empty if none was started."""
    processes = access.state(workspace).get("processes", {})
    return {name: process_of(entry) is not None for name, entry in processes.items()}


def prefect_url(workspace: Path) -> str | None:
    """Return the API address of the Prefect server that `up` started; None if it has ended."""
    state = access.state(workspace)
    if process_of(state.get("processes", {}).get("prefect")) is None:
        return None
    return f"http://{HOST}:{state['ports']['prefect']}/api"


def running_api(workspace: Path) -> str | None:
    """Return the API address of the Prefect server for a run; None if the run starts its own.

    Raises:
        InputError: the server of `PREFECT_API_URL` or of `make up` does not answer.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named:
        access.check_password(workspace, named)
    if named and (urlsplit(named).hostname or "").endswith(CLOUD):
        return named  # Prefect Cloud has no /health
    url = named or prefect_url(workspace)
    reason = unhealthy(f"{url}/health") if url else ""
    if not reason:
        return url
    if named:
        raise InputError(
            f"PREFECT_API_URL: no Prefect server answers at {url} ({reason}); start it, or unset "
            "the variable: a run then starts its own"
        )
    raise InputError(
        f"the Prefect server of `make up` does not answer at {url} ({reason}); make down; make up"
    )


def credentials(workspace: Path) -> dict[str, str]:
    """Return the headers that authenticate requests to a Prefect server; empty if none are needed.

    The server is that of `PREFECT_API_URL`, else that of `make up`. The password of `make up` is
    never sent to another server.
    """
    url = os.environ.get("PREFECT_API_URL") or prefect_url(workspace)
    own = access.prefect_access(workspace, url) if url else {}
    secret = os.environ.get(access.AUTH_STRING) or own.get(access.AUTH_STRING)
    if url and access.is_sent_elsewhere(workspace, url, secret):
        return {}
    key = os.environ.get("PREFECT_API_KEY")
    if secret:
        return access.basic(secret)
    return {"Authorization": f"Bearer {key}"} if key else {}


def restart(workspace: Path, name: str) -> None:
    """Start one service again; its process is stopped first if it still runs.

    Raises:
        InputError: no service of that name was started, or the password file is missing.
    """
    state = access.state(workspace)
    entry = state.get("processes", {}).get(name)
    if entry is None:
        known = ", ".join(state.get("processes", {})) or "none: make up"
        raise InputError(f"no service {name!r} was started here (there are: {known})")
    if access.password(workspace) is None:
        raise InputError(f"{access.PASSWORD} is missing, the password; make down; make up")
    process = process_of(entry)
    if process is not None:
        end([process])
    listener = listen(state["ports"][name], PORTS[name][0]) if name in PORTS else None
    # Processes that the old service started may still run, and `down` must find them.
    state.setdefault("former", []).append({"pid": entry["pid"], "created": entry["created"]})
    private.tighten(workspace)
    service.restore_settings(workspace)
    service.start(workspace, state, name, listener)


def _new_password() -> str:
    """Return the services' password: that of the user's environment, else a random one."""
    named = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if not named:
        return access.new_password()
    user, _, secret = named.partition(":")
    if not user or not secret or not named.isascii() or not named.isprintable():
        raise InputError(
            "PREFECT_SERVER_API_AUTH_STRING: must be user:password, both of ASCII characters; or "
            "unset it: a random one is made"
        )
    return named


def _start_all(
    workspace: Path, ports: Mapping[str, int], listeners: Mapping[str, socket.socket]
) -> None:
    from flows.tracking.mlflow_store import prepare

    api = f"http://{HOST}:{ports['prefect']}/api"
    worker = f"lori-{os.getpid()}"
    state: dict[str, Any] = {"ports": dict(ports), "processes": {}, "worker": worker}
    service.save_settings(workspace)
    service.start(workspace, state, "prefect", listeners["prefect"])
    prepare(service.database(workspace))
    service.start(workspace, state, "mlflow", listeners["mlflow"])
    _wait(state, "prefect", f"{api}/health")
    password = access.password(workspace)
    private.write_text(workspace / "prefect.toml", client_settings(api, password or ""))
    tool = partial(service.tool, workspace, ports)
    tool(service.PREFECT, "work-pool", "create", service.POOL, "--type", "process",
         "--base-job-template", str(service.POOL_TEMPLATE), "--overwrite")  # fmt: skip
    tool(service.PREFECT, "--no-prompt", "deploy", "--all")
    tool(sys.executable, "-m", "flows.server.automations")
    _wait(state, "mlflow", f"http://{HOST}:{ports['mlflow']}/health")
    service.start(workspace, state, "worker")
    workers = f"{api}/work_pools/{service.POOL}/workers/filter"
    _wait(state, "worker", workers, partial(_is_online, access.basic(password or ""), worker))


def client_settings(api: str, password: str) -> str:
    """Return the text of `prefect.toml`: the server's address and password for Prefect's commands.

    The plugin keeps the password from other servers (`flows.server.prefect_plugin`).
    """
    server = f'{MARK}\n[api]\nurl = "{api}"\nauth_string = {json.dumps(password)}\n'
    return f'{server}\n[plugins]\nenabled = true\nallow = "lori"\n'


def _wait(
    state: Mapping[str, Any], name: str, url: str, answers: Callable[[str], bool] = healthy
) -> None:
    entry = state["processes"][name]
    log = Log(Path(entry["log"]), entry["log_start"])
    wait_until_healthy(url, name, log, lambda: process_of(entry) is not None, answers=answers)


def _is_online(headers: Mapping[str, str], worker: str, url: str) -> bool:
    """Return whether the server's list of workers at `url` has a worker of this name."""
    import httpx

    try:
        answer = httpx.post(url, json={}, headers=dict(headers), timeout=2.0)
    except httpx.HTTPError:
        return False
    return answer.is_success and worker in {known["name"] for known in answer.json()}


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise InputError(f"{variable}={text!r} is not a port (allowed: 1 to 65535)")
    return int(text)


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
    except Exception as error:
        known = faults.explained(error)
        if known is None:
            raise
        print(f"error: {redact(one_line(known))}", file=sys.stderr)
        return known.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
