"""The password of `make up` goes to its server, and to no other that somebody names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flows import access
from flows.server import services
from lori_core.core.errors import InputError

ROOT = Path(__file__).parents[2]
OWN, FOREIGN = "http://127.0.0.1:4321/api", "http://team.example.org:4200/api"
PASSWORD = "lori:the-services-own"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace as `make up` leaves it; the servers themselves are not needed."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    (tmp_path / ".lori").mkdir()
    access.write_password(tmp_path, PASSWORD)
    (tmp_path / access.STATE).write_text(json.dumps({"ports": {"prefect": 4321}}))
    (tmp_path / "prefect.toml").write_text(services.client_settings(OWN, PASSWORD))
    return tmp_path


@pytest.mark.parametrize(
    ("url", "mine", "expected"),
    [
        (OWN, None, {access.AUTH_STRING: PASSWORD}),
        (OWN.replace("127.0.0.1", "localhost"), None, {access.AUTH_STRING: PASSWORD}),
        (FOREIGN, None, {access.AUTH_STRING: ""}),
        (OWN.replace("4321", "4322"), None, {access.AUTH_STRING: ""}),
        (OWN.replace("http:", "https:"), None, {access.AUTH_STRING: ""}),
        (FOREIGN, "me:my-own", {}),
    ],
)
def test_what_a_run_gives_a_server(
    url: str, mine: str | None, expected: dict[str, str], workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if mine:
        monkeypatch.setenv(access.AUTH_STRING, mine)
    assert access.prefect_access(workspace, url) == expected


def test_a_run_that_pairs_the_password_with_another_server_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", FOREIGN)
    monkeypatch.setenv(access.AUTH_STRING, PASSWORD)
    with pytest.raises(InputError) as refused:
        services.running_api(workspace)
    assert str(refused.value) == (
        "PREFECT_API_AUTH_STRING: is the password of the server of `make up`, and PREFECT_API_URL "
        f"names another server, {FOREIGN}; unset one of the two"
    )


def test_the_doctor_keeps_it_from_another_server(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", OWN)
    assert services.credentials(workspace) == access.basic(PASSWORD)
    monkeypatch.setenv("PREFECT_API_URL", FOREIGN)
    assert services.credentials(workspace) == {}
    monkeypatch.setenv(access.AUTH_STRING, PASSWORD)
    assert services.credentials(workspace) == {}
    monkeypatch.setenv(access.AUTH_STRING, "me:my-own")
    assert services.credentials(workspace) == access.basic("me:my-own")


SHOW = """
from prefect.client.orchestration import get_client
client = get_client()
print(client.api_url, client._client.headers.get("authorization"))
"""


def headers_of_prefects_client(
    workspace: Path, installed: Path, **variables: str
) -> tuple[str, str]:
    """Return what Prefect's client in a typed command would send, and what it says of it."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        cwd=workspace,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(installed), str(ROOT))),
            "PREFECT_HOME": str(workspace / "home"),
            "DO_NOT_TRACK": "true",
            **variables,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1], done.stderr


def test_prefects_own_commands_keep_it_from_another_server(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    installed = tmp_path_factory.mktemp("installed")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n{n} = {v}\n" for group, of in groups.items() for n, v in of.items()]
    metadata = installed / "lori-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lori\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("".join(lines))
    own = access.basic(PASSWORD)["Authorization"]
    assert headers_of_prefects_client(workspace, installed) == (f"{OWN}/ {own}", "")
    said, warned = headers_of_prefects_client(workspace, installed, PREFECT_API_URL=FOREIGN)
    assert said == f"{FOREIGN}/ None"
    assert warned.startswith("warning: PREFECT_API_URL names another server than that of `make up`")
    mine = {"PREFECT_API_URL": FOREIGN, access.AUTH_STRING: "me:my-own"}
    theirs = access.basic("me:my-own")["Authorization"]
    assert headers_of_prefects_client(workspace, installed, **mine) == (f"{FOREIGN}/ {theirs}", "")
