"""What `make up` and `make down` refuse and clean up, without starting the real services."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from flows.server import services
from flows.server.processes import family
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_json


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORI_PREFECT_PORT", raising=False)
    monkeypatch.delenv("LORI_MLFLOW_PORT", raising=False)
    return tmp_path


def remember(workspace: Path, process: subprocess.Popen[bytes]) -> None:
    import psutil

    entry = {"pid": process.pid, "created": psutil.Process(process.pid).create_time(), "log": ""}
    write_json(
        workspace / ".lori/services.json",
        {"ports": {"prefect": 4299, "mlflow": 5099}, "processes": {"prefect": entry}},
    )


@pytest.mark.parametrize("value", ["abc", "0", "70000", "-1"])
def test_a_port_that_is_none(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LORI_MLFLOW_PORT", value)
    assert services.main(["up"]) == 2
    assert capsys.readouterr().err == (
        f"error: LORI_MLFLOW_PORT='{value}' is not a port (allowed: 1 to 65535)\n"
    )


def test_a_busy_port(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("LORI_PREFECT_PORT", str(port))
        assert services.main(["up"]) == 2
    assert f"port {port} is not free" in capsys.readouterr().err
    assert not (workspace / "prefect.toml").exists()


def test_two_services_on_one_port(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LORI_MLFLOW_PORT", "4200")
    assert services.main(["up"]) == 2
    assert "LORI_PREFECT_PORT and LORI_MLFLOW_PORT are both 4200" in capsys.readouterr().err


def test_down_ends_children_and_removes_what_up_wrote(workspace: Path) -> None:
    script = "sleep 1000 & echo $!; wait"
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        remember(workspace, process)
        (workspace / "prefect.toml").write_text(f"{services.MARK}\n")
        assert services.prefect_url(workspace) == "http://127.0.0.1:4299/api"
        assert services.status(workspace) == {"prefect": True}
        assert services.main(["up"]) == 2
        assert services.down(workspace) == 2
        process.stdout.read()  # ends when nobody holds the pipe
    assert not Path(f"/proc/{child}/cmdline").exists() or _is_zombie(child)
    assert not (workspace / "prefect.toml").exists()
    assert services.prefect_url(workspace) is None
    assert services.down(workspace) == 0


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes() == b""


def test_a_settings_file_of_someone_else_stays(workspace: Path) -> None:
    (workspace / "prefect.toml").write_text("[api]\n")
    services.down(workspace)
    assert (workspace / "prefect.toml").read_text() == "[api]\n"
    with pytest.raises(InputError, match=r"prefect\.toml: `make up` did not write it"):
        services.up(workspace)
    assert (workspace / "prefect.toml").read_text() == "[api]\n"


def test_another_process_with_the_same_number_is_left_alone(workspace: Path) -> None:
    entry = {"pid": os.getpid(), "created": 0.0, "log": ""}
    write_json(workspace / ".lori/services.json", {"processes": {"prefect": entry}})
    assert services.status(workspace) == {"prefect": False}
    # Nothing of this session was started by `up`, though the numbers agree.
    assert os.getpid() not in [process.pid for process in family({"processes": {}})]


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert services.main(["sideways"]) == 2
    assert "up|down|restart NAME|status" in capsys.readouterr().err
