"""One at a time on a registered model: threads, processes, machines, and one that died."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_flow_gate import aliases, plain_version
from test_flow_tracking_server import server

from flows.server.local_api import free_port
from flows.tracking.registry import Registry
from flows.tracking.registry_lock import PREFIX, claimed


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri, uri)


def tags(client: Any) -> set[str]:
    return set(client.get_registered_model("m").tags or {})


def test_of_many_that_want_a_model_one_has_it_at_a_time(uri: str) -> None:
    client_of(uri).create_registered_model("m")
    holders: list[int] = []

    def work(number: int) -> int:
        client, most = client_of(uri), 0
        for _ in range(3):
            with claimed(client, "m"):
                holders.append(number)
                client.get_registered_model("m")  # as long as a call takes, for others to get in
                most = max(most, len(holders))
                holders.remove(number)
        return most

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [1, 1, 1, 1]
    assert tags(client_of(uri)) == set()


def test_the_claim_of_one_that_died_is_removed_after_a_while(uri: str) -> None:
    client = client_of(uri)
    client.create_registered_model("m")
    dead = f"{PREFIX}{'0' * 32}"
    client.set_registered_model_tag("m", dead, "host")
    with claimed(client, "m", lease=0.2):
        assert dead not in tags(client)
        assert len(tags(client)) == 1
    assert tags(client) == set()


def test_a_failure_inside_gives_the_model_back(uri: str) -> None:
    client = client_of(uri)
    client.create_registered_model("m")
    with pytest.raises(ValueError, match="inside"), claimed(client, "m"):
        raise ValueError("inside")
    assert tags(client) == set()


#: Promotes version N of `m`, as a machine of its own: says before it moves the alias, or when it
#: waits for another, and goes on when it is told to.
RACER = """
import sys, time
from pathlib import Path
from flows.tracking import registry_lock as claims
from flows.tracking.registry import ChampionChangedError, Registry

registry = Registry(Path())
version, champion = registry.version("m", sys.argv[1]), registry.at("m", "champion")
move, sleep, said = registry.client.set_registered_model_alias, time.sleep, []

def say(word):
    if word not in said:
        said.append(word)
        print(word, flush=True)
        sys.stdin.readline()

def moves(name, alias, number):
    if alias == "champion":
        say("moving")
    move(name, alias, number)

def waits(seconds):
    say("waiting")
    sleep(seconds)

registry.client.set_registered_model_alias = moves
claims.time.sleep = waits
try:
    registry.promote(version, champion)
    print("promoted")
except ChampionChangedError as error:
    print("overtaken")
"""


@pytest.mark.real
def test_two_machines_that_promote_at_once_leave_one_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with server(tmp_path, port):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        registry = Registry(tmp_path)
        versions = [plain_version(registry, tmp_path, number) for number in (1, 2, 3)]
        registry.promote(versions[0], None)
        racers = []
        for number in ("2", "3"):
            (tmp_path / number).mkdir()
            racer = subprocess.Popen(
                [sys.executable, "-c", RACER, number],
                cwd=tmp_path / number,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert racer.stdout is not None
            racers.append((racer, racer.stdout.readline()))
        assert [said for _, said in racers] == ["moving\n", "waiting\n"]
        outcomes = [racer.communicate("\n\n")[0].splitlines()[-1] for racer, _ in racers]
        assert outcomes == ["promoted", "overtaken"]
        assert aliases(registry) == {"champion": "2", "previous": "1"}
        assert tags(registry.client) == set()
