"""A server that is started answers, or its end is noticed at once and told in a line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from flows import access
from flows.server import services
from flows.server.local_api import Log, free_port, start_local_api, wait_until_healthy
from lori_core.core.errors import InputError, LoriError
from lori_core.core.files.atomic import write_json


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}/health"


def test_a_process_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import sys; print('Traceback'); print('a.BadError: no'); print('Exiting.')"
    with (
        log.open("wb") as output,
        subprocess.Popen([sys.executable, "-c", script], stdout=output) as process,
        pytest.raises(LoriError) as caught,
    ):
        wait_until_healthy(nowhere(), "it", Log(log), lambda: process.wait() is None)
    assert str(caught.value) == f"it ended while it started: a.BadError: no ({log})"


def test_a_process_that_does_not_answer_is_waited_for_so_long(tmp_path: Path) -> None:
    url = nowhere()
    with pytest.raises(LoriError) as caught:
        wait_until_healthy(url, "it", Log(tmp_path / "log"), seconds=0)
    assert str(caught.value) == f"it did not answer at {url} in 0 s; its log is {tmp_path}/log"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", "the log is empty"),
        ("one\ntwo\n\n", "two"),
        ("x.y.SomeError: first\nValueError: last\nmore\n", "ValueError: last"),
        ("\udce9 not a word\n", "\ufffd not a word"),
    ],
)
def test_the_last_error_of_a_log(log: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(log.encode("utf-8", "surrogateescape"))
    assert Log(path).last_error() == expected
    former = b"FormerError: of another process\n"
    path.write_bytes(former + path.read_bytes())
    assert Log(path, len(former)).last_error() == expected


def test_prefects_api_without_a_place_for_its_database_says_so(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(toy / "toy.py" / "prefect"))
    api = start_local_api(toy)
    api.process.wait()
    with pytest.raises(LoriError) as caught:
        api.wait()
    (line,) = str(caught.value).splitlines()
    assert line.startswith("Prefect's API ended while it started: sqlalchemy.exc.Operational")
    assert "unable to open database file" in line
    assert line.endswith(f" ({toy}/.lori/logs/api.log)")


@pytest.mark.real
def test_the_api_of_a_run_answers_that_run_only(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    api = start_local_api(toy)
    api.wait()
    known = access.basic(api.password)
    page = {"Origin": "https://evil.example"}
    socket = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    socket |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "prefect"}
    with httpx.Client(trust_env=False, timeout=60) as client:

        def status(path: str, method: str = "POST", **headers: str) -> int:
            body = {"json": {}} if method == "POST" else {}
            answer = client.request(method, f"{api.url}{path}", headers=headers, **body)  # type: ignore[arg-type]
            return answer.status_code

        assert status("/flow_runs/filter", **known) == 200
        assert status("/flow_runs/filter") == 401
        assert status("/flow_runs/filter", **access.basic("lori:guess")) == 401
        assert status("/flow_runs/filter", **known, **page) == 403
        assert status("/flow_runs/filter", "OPTIONS", **page) == 403
        assert status("/flow_runs/filter", **known, Host="evil.example") == 403
        assert status("/events/in", "GET", **socket, **page) == 403
    process = psutil.Process(api.process.pid)
    assert api.variables == {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": api.password}
    assert api.password not in f"{api} {process.cmdline()} {api.log.path.read_text()}"
    assert {each.laddr.ip for each in process.net_connections("inet")} == {"127.0.0.1"}
    own = toy / ".lori"
    files = [api.log.path, *(own / "prefect").glob("*.db*")]
    assert {path.name for path in files} >= {"api.log", "prefect.db", "prefect.db-wal"}
    modes = {path: oct(path.stat().st_mode & 0o777) for path in (own, own / "prefect", *files)}
    assert modes == {path: "0o600" if path in files else "0o700" for path in modes}
    api.process.terminate()
    api.process.wait()


def test_a_server_that_is_named_and_dead_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert services.running_api(tmp_path) is None
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(InputError) as caught:
        services.running_api(tmp_path)
    assert str(caught.value) == (
        f"PREFECT_API_URL: no Prefect server answers at {url} ([Errno 111] Connection refused); "
        "start it, or unset the variable: a run then starts its own"
    )


def test_a_server_of_make_up_that_does_not_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    port = free_port()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        entry = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
        state = {"ports": {"prefect": port, "mlflow": 0}, "processes": {"prefect": entry}}
        write_json(tmp_path / ".lori/services.json", state)
        with pytest.raises(InputError, match="`make up` does not answer at http"):
            services.running_api(tmp_path)
        assert process.stdin is not None
        process.stdin.close()
    assert services.running_api(tmp_path) is None
