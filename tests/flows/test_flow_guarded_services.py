"""The real services of `make up`, attacked by a page in a browser and by another user.

They are started once for this file, over a workspace whose stages take a second.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from crashes import make
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from flows import access
from flows.server import service, services
from flows.server.local_api import free_port
from flows.server.processes import family

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
EVIL = "https://evil.example"
#: Named by the user; stands for an address with a password.
DATABASE = "named-by-variable.db"
#: Set by whoever works on the tests, for servers of theirs.
FOREIGN = ("PREFECT_", "MLFLOW_", "LORI_PREFECT", "LORI_MLFLOW")


@dataclass(frozen=True)
class Served:
    """A workspace whose services are up."""

    workspace: Path
    ports: dict[str, int]
    said: str

    @property
    def password(self) -> str:
        return access.password(self.workspace) or ""

    def typed(self, *command: str, **variables: str) -> str:
        """Run a command as it is typed in the workspace, in a shell that knows nothing of it."""
        done = type_in(self.workspace, *command, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, name: str, path: str, method: str = "POST", **settings: Any) -> httpx.Response:
        """Send a request to a service, as anybody can who has a program on this machine."""
        url = f"http://127.0.0.1:{self.ports[name]}{path}"
        settings.setdefault("json", {"max_results": 1} if name == "mlflow" else {})
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.request(method, url, **settings)

    def prefect(self, path: str, method: str = "POST", **settings: Any) -> httpx.Response:
        """Send a request to Prefect's API with the password."""
        return self.ask("prefect", f"/api{path}", method, headers=self.header, **settings)

    @property
    def header(self) -> dict[str, str]:
        return access.basic(self.password)

    def processes(self) -> list[psutil.Process]:
        return family(access.state(self.workspace))


def type_in(workspace: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith(FOREIGN)}
    return subprocess.run(
        [str(TOOLS / command[0]), *command[1:]],
        cwd=workspace,
        env={**clean, "CUDA_VISIBLE_DEVICES": "", "PREFECT_SERVER_ANALYTICS_ENABLED": "0"}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    workspace = make(folder / "workspace")
    ports = {"prefect": free_port(), "mlflow": free_port()}
    variables = {
        "LORI_PREFECT_PORT": str(ports["prefect"]),
        "LORI_MLFLOW_PORT": str(ports["mlflow"]),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / DATABASE}",
    }
    command = ("python", "-m", "flows.server.services")
    up = type_in(workspace, *command, "up", **variables)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield Served(workspace, ports, up.stdout)
    finally:
        down = type_in(workspace, *command, "down")
        assert down.returncode == 0, down.stderr
    left = [workspace / name for name in (access.PASSWORD, access.STATE, service.SETTINGS)]
    assert not [path for path in (*left, workspace / "prefect.toml") if path.exists()]


@pytest.fixture(scope="module")
def ran(served: Served) -> Served:
    """Services under which a run has ended that was typed in the workspace."""
    served.typed("prefect", "deployment", "run", "lori/full-pipeline", "--watch")
    return served


def test_up_says_where_the_password_is_and_not_what(served: Served) -> None:
    assert f"password in {access.PASSWORD}: " in served.said
    assert served.password.partition(":")[2] not in served.said


API = {"prefect": "/api/flow_runs/filter", "mlflow": "/api/2.0/mlflow/experiments/search"}


@pytest.mark.parametrize("name", API)
def test_who_knows_the_password_is_answered(name: str, served: Served) -> None:
    assert served.ask(name, API[name], headers=served.header).status_code == 200
    own = {"Origin": f"http://127.0.0.1:{served.ports[name]}"}
    assert served.ask(name, API[name], headers=served.header | own).status_code == 200


@pytest.mark.parametrize("name", API)
def test_another_user_is_not(name: str, served: Served) -> None:
    assert served.ask(name, API[name]).status_code == 401
    assert served.ask(name, API[name], headers=access.basic("lori:guess")).status_code == 401


def test_mlflows_pages_ask_for_the_password(served: Served) -> None:
    answer = served.ask("mlflow", "/", "GET")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert "<title>MLflow</title>" in served.ask("mlflow", "/", "GET", headers=served.header).text


def test_prefects_pages_ask_for_the_password(served: Served) -> None:
    settings = served.ask("prefect", "/ui-settings", "GET").json()
    assert settings["auth"] == "BASIC"
    assert settings["api_url"] == f"http://127.0.0.1:{served.ports['prefect']}/api"
    # What the page asks first with the password that was typed, also from the machine's other name.
    for name in access.NAMES:
        origin = {"Origin": f"http://{name}:{served.ports['prefect']}"}
        asked = {"Access-Control-Request-Method": "GET"}
        asked["Access-Control-Request-Headers"] = "authorization,x-prefect-api-version"
        flight = served.ask("prefect", "/api/admin/version", "OPTIONS", headers=origin | asked)
        assert flight.status_code == 200
        assert flight.headers["access-control-allow-origin"] == origin["Origin"]
        answer = served.ask("prefect", "/api/admin/version", "GET", headers=origin | served.header)
        assert answer.status_code == 200


@pytest.mark.parametrize("name", API)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL, "Content-Type": "text/plain"},
        {"Origin": EVIL, "Content-Type": "application/json"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Host": "evil.example"},
    ],
)
def test_a_page_is_refused_though_its_browser_knows_the_password(
    headers: dict[str, str], name: str, served: Served
) -> None:
    assert served.ask(name, API[name], headers=served.header | headers).status_code == 403
    flight = {**headers, "Access-Control-Request-Method": "POST"}
    refused = served.ask(name, API[name], "OPTIONS", headers=flight)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def handshake(port: int, **headers: str) -> int:
    """Return the status with which a WebSocket is answered; 101 is a connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("GET", "/api/events/out", skip_host=True)
    sent = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        "Sec-WebSocket-Protocol": "prefect",
    }
    for name, value in (sent | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    with connection.getresponse() as answer:
        connection.close()
        return answer.status


def test_websockets(served: Served) -> None:
    port = served.ports["prefect"]
    assert handshake(port) == 101
    assert handshake(port, Origin=f"http://127.0.0.1:{port}") == 101
    assert handshake(port, Origin=EVIL) == 403
    assert handshake(port, Host="evil.example") == 403
    for token, code in (("lori:guess", 1008), (served.password, 0)):
        url = f"ws://127.0.0.1:{port}/api/events/out"
        with connect(url, subprotocols=["prefect"], proxy=None) as socket:  # type: ignore[list-item]
            socket.send(json.dumps({"type": "auth", "token": token}))
            if code:
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(timeout=60)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == code
            else:
                assert json.loads(socket.recv(timeout=60)) == {"type": "auth_success"}


@pytest.mark.parametrize(
    "variables",
    [{"command": "touch taken"}, {"env": {"PYTHONPATH": "/evil"}}, {"working_dir": "/"}],
)
def test_a_run_may_not_name_its_command(variables: dict[str, Any], served: Served) -> None:
    deployment = served.prefect("/deployments/name/lori/full-pipeline", "GET").json()["id"]
    path = f"/deployments/{deployment}/create_flow_run"
    assert served.prefect(path, json={"job_variables": variables}).status_code == 422
    assert patched(served, deployment, variables)
    assert served.prefect(path).status_code == 422
    assert patched(served, deployment, {})


def patched(served: Served, deployment: str, variables: dict[str, Any]) -> bool:
    """Write job variables; SQLite may be busy with what the server does by itself."""
    path, change = f"/deployments/{deployment}", {"job_variables": variables}
    return any(served.prefect(path, "PATCH", json=change).status_code == 204 for _ in range(20))


def test_a_worker_takes_nothing_from_a_run_but_its_flow() -> None:
    import asyncio

    from prefect.workers.process import ProcessJobConfiguration

    template = json.loads(service.POOL_TEMPLATE.read_text())
    asked = {"command": "touch taken", "env": {"A": "1"}, "env.B": "2", "working_dir": "/"}
    made = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, asked))
    assert (made.command, made.env, made.working_dir) == (None, {}, None)


def test_the_typed_run_was_the_pipeline(ran: Served) -> None:
    assert (ran.workspace / "report" / "out.txt").exists()
    runs = ran.prefect("/flow_runs/filter").json()
    # Others are those of the deployment's schedule, which wait for their time.
    assert [r["state_type"] for r in runs if r["state_type"] != "SCHEDULED"] == ["COMPLETED"]


def test_the_run_is_in_mlflow_and_its_commands_need_no_further_step(
    ran: Served, tmp_path: Path
) -> None:
    import tomllib

    # The package's entry points, also where it was installed before there were any.
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n{n} = {v}\n" for group, of in groups.items() for n, v in of.items()]
    metadata = tmp_path / "lori-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lori\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("".join(lines))
    shown = ran.typed(
        *("mlflow", "experiments", "search"),
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{ran.ports['mlflow']}",
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ran.workspace}",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
    )
    assert "crashes" in shown


def test_only_loopback_is_listened_on(ran: Served) -> None:
    found = set()
    for process in ran.processes():
        for each in process.net_connections("inet"):
            if each.status == psutil.CONN_LISTEN:
                found.add((each.laddr.ip, each.laddr.port))
    assert {ip for ip, _ in found} == {"127.0.0.1"}
    assert {port for _, port in found} >= set(ran.ports.values())


def test_all_that_is_private_has_the_mode_of_it(ran: Served) -> None:
    own = ran.workspace / ".lori"
    folders = [own, own / "logs", own / "prefect", ran.workspace / "mlruns"]
    files = [own / name for name in ("password", "services.json", "services.env.json")]
    files += [ran.workspace / "prefect.toml", *(own / "logs").iterdir()]
    databases = [*ran.workspace.parent.glob(f"{DATABASE}*"), *(own / "prefect").glob("*.db*")]
    assert {path.name for path in databases} >= {DATABASE, "prefect.db", "prefect.db-wal"}
    assert {path.name for path in (own / "logs").iterdir()} >= {"prefect.log", "worker.log"}
    modes = {path: oct(path.stat().st_mode & 0o777) for path in (*folders, *files, *databases)}
    assert modes == {p: "0o700" if p in folders else "0o600" for p in modes}


def test_the_secrets_stand_nowhere_else(ran: Served) -> None:
    secret = ran.password.partition(":")[2]
    encoded = ran.header["Authorization"].partition(" ")[2]
    for process in ran.processes():
        line = " ".join(process.cmdline())
        assert not [word for word in (secret, encoded, DATABASE) if word in line]
    holders = set()
    for path in ran.workspace.rglob("*"):
        if path.is_file() and any(w.encode() in path.read_bytes() for w in (secret, encoded)):
            holders.add(path.relative_to(ran.workspace).as_posix())
    assert holders == {".lori/password", "prefect.toml"}
    database = (ran.workspace.parent / DATABASE).read_bytes()
    assert secret.encode() not in database
    logs = [path.read_text() for path in (ran.workspace / ".lori" / "logs").iterdir()]
    noted = (ran.workspace / access.STATE).read_text()
    assert not [text for text in (noted, *logs) if DATABASE in text]


def test_the_doctor_gives_the_password(ran: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.doctor.services import mlflow, prefect

    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{ran.ports['mlflow']}")
    (first,), (second,) = prefect(ran.workspace, {}), mlflow(ran.workspace, {})
    assert (first.ok, second.ok) == (True, True), (first, second)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_a_service_comes_back_in_another_shell(ran: Served) -> None:
    before = ran.password
    ran.typed("python", "-m", "flows.server.services", "restart", "mlflow")
    entry = access.state(ran.workspace)["processes"]["mlflow"]
    services._wait({"processes": {"mlflow": entry}}, "mlflow",
                   f"http://127.0.0.1:{ran.ports['mlflow']}/health")  # fmt: skip
    assert ran.password == before
    found = ran.ask("mlflow", API["mlflow"], headers=ran.header, json={"max_results": 9}).json()
    assert "crashes" in {each["name"] for each in found["experiments"]}
    assert ran.ask("mlflow", API["mlflow"]).status_code == 401
