"""What `lori doctor` sees of a workspace and of the servers it names."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.doctor import checks as doctor
from flows.doctor.finding import Finding
from flows.doctor.services import remotes
from flows.server.local_api import free_port

SECRET = "lori:secret"


@pytest.fixture
def workspace(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy workspace with real parameters, and no server in the environment."""
    smoke = Path(__file__).parents[2] / "profiles" / "smoke.yaml"
    (toy / "params.yaml").write_text(smoke.read_text())
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return toy


@pytest.fixture
def guarded() -> Iterator[str]:
    """A server that answers only who logs in."""
    expected = f"Basic {base64.b64encode(SECRET.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers.get("Authorization") == expected else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def findings(workspace: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.examine(workspace)}


def test_a_fresh_workspace_is_well(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.show(doctor.examine(workspace), colour=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line[:3] for line in lines} == {"ok "}
    names = [line[5:17].strip() for line in lines]
    assert {"python", "packages", "gpu", "disk", "prefect", "mlflow", "clock", "locks"} <= {*names}


def test_a_wrong_parameter_is_red_and_the_rest_is_still_looked_at(workspace: Path) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("rank: 8", "rnk: 8"))
    found = findings(workspace)
    assert not found["params.yaml"].ok
    assert "lori.rnk: unknown key; did you mean 'rank'" in found["params.yaml"].text
    assert found["locks"].ok


def test_versions_are_those_the_project_asks_for() -> None:
    assert list(
        doctor._unmet(["numpy>=1", "numpy<1", "no-such-thing>=2", "x>1; extra == 'y'"])
    ) == [
        f"numpy {__import__('numpy').__version__} is installed, <1 is needed",
        "no-such-thing is not installed",
    ]


def test_servers_are_asked_with_our_credentials(
    workspace: Path, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{guarded}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)
    found = findings(workspace)
    assert (found["prefect"].ok, found["mlflow"].ok) == (False, False)
    assert found["prefect"].text == f"{guarded}/api/admin/version: refuses our credentials (401)"
    assert "PREFECT_API_AUTH_STRING" in found["prefect"].todo
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "lori")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    found = findings(workspace)
    assert (found["prefect"].ok, found["mlflow"].ok) == (True, True)


def test_an_absent_server_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    prefect = findings(workspace)["prefect"]
    assert not prefect.ok
    assert prefect.text.startswith(f"{url}/admin/version: not reachable")


def test_remotes_are_listed(workspace: Path, tmp_path: Path) -> None:
    dvc = [sys.executable, "-m", "dvc", "remote", "add", "-q"]
    subprocess.run([*dvc, "store", str(tmp_path / "store")], cwd=workspace, check=True)
    subprocess.run([*dvc, "web", f"http://127.0.0.1:{free_port()}/x"], cwd=workspace, check=True)
    folder, web = remotes(workspace, {})
    assert folder == Finding("dvc remote", True, f"store at {tmp_path / 'store'}: reachable")
    assert (web.ok, web.text.startswith("web at http://127.0.0.1")) == (False, True)


def test_locks_of_dead_processes_are_named(
    workspace: Path, worked: Callable[[], list[str]]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    rwlock = workspace / ".dvc" / "tmp" / "rwlock"
    rwlock.parent.mkdir(parents=True, exist_ok=True)
    held = {"write": {"out/a": {"pid": gone.pid, "cmd": "dvc repro"}}, "read": {}}
    rwlock.write_text(json.dumps(held))
    locks = findings(workspace)["locks"]
    assert not locks.ok
    assert locks.text == f"DVC's lock on out/a by process {gone.pid}, which is gone"


def test_gpus_that_are_asked_for_but_absent_are_red(workspace: Path) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("gpus: auto", "gpus: 2"))
    gpu = findings(workspace)["gpu"]
    assert (gpu.ok, gpu.text) == (False, "no NVIDIA driver; execution.gpus is 2")
