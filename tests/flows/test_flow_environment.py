"""What our processes inherit: proxies that leave this machine alone, and caches without a home."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows import environment
from flows.environment import caches_without_home, loopback_without_proxy

LOOPBACK = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_no_proxy_names_this_machine_where_there_is_a_proxy(name: str) -> None:
    assert loopback_without_proxy({}) == {}
    assert loopback_without_proxy({"no_proxy": "a.org", name: ""}) == {}
    found = loopback_without_proxy({name: "http://proxy:3128"})
    assert found == {"no_proxy": LOOPBACK, "NO_PROXY": LOOPBACK}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"no_proxy": "a.org, .b.org"}, f"a.org,.b.org,{LOOPBACK}"),
        ({"NO_PROXY": "10.0.0.0/8,localhost"}, "10.0.0.0/8,localhost,127.0.0.1,::1"),
        ({"no_proxy": "", "NO_PROXY": "a.org"}, f"a.org,{LOOPBACK}"),
        ({"no_proxy": "a.org", "NO_PROXY": "b.org"}, f"a.org,b.org,{LOOPBACK}"),
        ({"no_proxy": "[::1]:80,fd00::/8,[fe80::1]"}, "::1,fe80::1,localhost,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
        ({"no_proxy": f"a.org,{LOOPBACK}"}, f"a.org,{LOOPBACK}"),
    ],
)
def test_the_users_entries_stay(said: dict[str, str], expected: str) -> None:
    found = loopback_without_proxy({"http_proxy": "http://proxy:3128", **said})
    assert found == {"no_proxy": expected, "NO_PROXY": expected}
    assert loopback_without_proxy({"http_proxy": "x", **found}) == found


@pytest.fixture
def server() -> Iterator[int]:
    """The port of an HTTP server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served.server_port
    served.shutdown()
    thread.join()
    served.server_close()


def test_every_client_reaches_this_machine_past_a_proxy_that_is_dead(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    import requests
    from websockets.proxy import get_proxy
    from websockets.uri import parse_uri

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "[::1],fd00::/8,10.0.0.0/8")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(httpx.InvalidURL):
        httpx.Client()
    environment.quiet_environment()
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{server}/"
        assert httpx.get(url).status_code == 200
        assert requests.get(url, timeout=10).status_code == 200
        with urllib.request.build_opener().open(url, timeout=10) as answer:
            assert answer.status == 200
        assert get_proxy(parse_uri(f"ws://{host}:{server}/")) is None
    assert get_proxy(parse_uri("ws://[::1]:1/")) is None
    assert get_proxy(parse_uri("ws://a.org/")) == "http://127.0.0.1:9"
    inherited = environment.child_environment()["NO_PROXY"]
    assert inherited == "::1,10.0.0.0/8,localhost,127.0.0.1"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_idle_threads_sleep_unless_the_user_says_how_they_wait(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in environment.WAITING:
        monkeypatch.delenv(each, raising=False)
    child = environment.child_environment()
    assert (child["OMP_WAIT_POLICY"], child["KMP_BLOCKTIME"]) == ("passive", "0")
    assert "OMP_NUM_THREADS" not in set(child) - set(os.environ)
    for each in environment.WAITING:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "7")
    child = environment.child_environment()
    assert {each: child[each] for each in environment.WAITING if each in child} == {name: "7"}


def test_a_command_says_how_threads_wait_before_torch_is_imported() -> None:
    script = (
        "import os, sys; import lori_cli as cli\n"
        "try: cli.main(['profiles'])\n"
        "finally: print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    )
    kept = {k: v for k, v in os.environ.items() if k not in environment.WAITING}
    done = subprocess.run([sys.executable, "-c", script], env=kept, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["False passive"], done.stderr


def test_a_home_that_can_be_written_stays(tmp_path: Path) -> None:
    assert caches_without_home({"HOME": str(tmp_path), "LORI_CACHE": "/c"}) == {}


def test_caches_need_no_home_where_their_place_is_named(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    assert caches_without_home({"HOME": absent}) == {}
    assert caches_without_home({"HOME": absent, "LORI_CACHE": "/c"}) == {"HOME": "/c/home"}
    assert caches_without_home({"HOME": absent, "XDG_CACHE_HOME": "/x"}) == {"HOME": "/x/home"}


def test_a_home_of_another_user_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    here = {"HOME": str(tmp_path)}
    assert caches_without_home(here) == {"HOME": environment.NO_HOME}
    assert caches_without_home(here | {"LORI_CACHE": "/c"}) == {"HOME": "/c/home"}


def test_a_home_that_can_only_be_read_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # root may write
    said = {"HOME": str(tmp_path), "LORI_CACHE": "/c", "TRITON_HOME": "/t"}
    assert caches_without_home({"HOME": str(tmp_path)}) == {}
    assert caches_without_home(said) == {
        "MPLCONFIGDIR": "/c/matplotlib",
        "VLLM_CACHE_ROOT": "/c/vllm",
    }


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    uid = str(os.getuid())
    assert caches_without_home({}) == {"USER": uid, "HOME": environment.NO_HOME}
    assert caches_without_home({"LORI_CACHE": "/c"}) == {"USER": uid, "HOME": "/c/home"}
    assert caches_without_home({"LOGNAME": "me", "LORI_CACHE": "/c"}) == {"HOME": "/c/home"}


def test_prefects_files_lie_in_the_workspace_unless_the_user_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.delenv("PREFECT_PROFILES_PATH", raising=False)
    here = {"PREFECT_HOME": str(tmp_path / ".lori/prefect")}
    assert environment.prefect_home(tmp_path) == here
    profiles = tmp_path / "home/.prefect/profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.touch()
    assert environment.prefect_home(tmp_path) == here | {"PREFECT_PROFILES_PATH": str(profiles)}
    monkeypatch.setenv("PREFECT_PROFILES_PATH", "/mine.toml")
    assert environment.prefect_home(tmp_path) == here
    monkeypatch.setenv("PREFECT_HOME", "/mine")
    assert environment.prefect_home(tmp_path) == {}
