"""What gets to a server on loopback: requests of its user, and of no page but its own."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from flows.server import prefect_server
from flows.server.guard import Guard
from lori_core.core.errors import InputError

PORT = 4200
PASSWORD = "lori:p:w"
OWN = {"host": f"127.0.0.1:{PORT}"}


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def answer(
    headers: dict[str, str], *more: tuple[str, str], password: str | None = None, **scope: Any
) -> int:
    """Return the status with which a request is answered; 200 is the application's.

    `more` are headers that stand there a second time.
    """
    return answered(Guard(application, PORT, password), [*headers.items(), *more], **scope)


def answered(guard: Guard, headers: list[tuple[str, str]], **scope: Any) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    listed = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    whole = {"type": "http", "method": "POST", "path": "/api/x", "headers": listed, **scope}
    asyncio.run(guard(whole, None, send))  # type: ignore[arg-type]
    return int(sent[0].get("status") or sent[0]["code"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:4200", 200),
        ("localhost:4200", 200),
        ("LOCALHOST", 200),
        ("localhost:8080", 200),  # through a tunnel
        ("evil.example:4200", 403),
        ("127.0.0.1.evil.example:4200", 403),
        ("localhost.evil.example", 403),
        ("evil.example#127.0.0.1", 403),
        ("127.0.0.1@evil.example", 403),
        ("localhost:4200, evil.example", 403),
        ("127.0.0.1:4200\n", 403),
        ("10.0.0.1:4200", 403),
        ("", 403),
    ],
)
def test_hosts(host: str, status: int) -> None:
    assert answer({"host": host}) == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("prefect:4200", "", 200),
        ("PREFECT:4200", "", 200),
        ("prefect", "", 403),
        ("team.example.org", "https://team.example.org", 200),
        ("team.example.org", "https://team.example.org:444", 403),
        ("127.0.0.1:4200", "https://team.example.org", 200),
        ("127.0.0.1:4200", "https://evil.example", 403),
        ("evil.example", "https://team.example.org", 403),
    ],
)
def test_the_names_that_a_server_is_told(host: str, origin: str, status: int) -> None:
    guard = Guard(
        application,
        PORT,
        hosts=("prefect:4200", "team.example.org"),
        origins=("https://team.example.org",),
    )
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert answered(guard, list(headers.items())) == status


def test_a_server_in_a_container_is_told_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "https://Team.example.org, http://a:1"
    )
    monkeypatch.setenv("LORI_PREFECT_HOSTS", "prefect:4200")
    origins = ("https://team.example.org", "http://a:1")
    assert prefect_server.names() == (("prefect:4200", "team.example.org", "a:1"), origins)


@pytest.mark.parametrize("value", ["", "*", "https://*", "https://a.b/", "a.b", "https://a.b,"])
def test_a_server_in_a_container_is_for_no_page_at_large(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", value)
    monkeypatch.setenv("LORI_PREFECT_HOSTS", "prefect:4200")
    with pytest.raises(
        InputError, match=r"^PREFECT_SERVER_CORS_ALLOWED_ORIGINS: '.*' is not allow"
    ):
        prefect_server.names()


def test_a_request_without_a_host_or_with_two() -> None:
    assert answer({}) == 403
    assert answer(OWN, ("host", "evil.example")) == 403
    assert answer({**OWN, "origin": "http://localhost:4200"}, ("origin", "http://a.b")) == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:4200", 200),
        ("http://localhost:4200", 200),
        ("http://127.0.0.1:8000", 403),  # of another server of this machine
        ("http://localhost", 403),
        ("https://127.0.0.1:4200", 403),
        ("https://evil.example", 403),
        ("http://127.0.0.1:4200.evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_origins(method: str, origin: str, status: int) -> None:
    assert answer({**OWN, "origin": origin}, method=method) == status


def test_the_origin_of_a_tunnel() -> None:
    assert answer({"host": "localhost:8080", "origin": "http://localhost:8080"}) == 200
    assert answer({"host": "localhost:8080", "origin": "http://localhost:8081"}) == 403


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),  # a link to our page
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "script", 403),
    ],
)
def test_requests_of_pages_without_an_origin(site: str, mode: str, dest: str, status: int) -> None:
    sent = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    assert answer({**OWN, **sent}, method="GET") == status


def test_a_form_of_another_site_without_an_origin() -> None:
    sent = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert answer({**OWN, **sent, "sec-fetch-dest": "document"}, method="POST") == 403


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (basic("lori:p:w"), 200),
        (basic("lori:p:w").replace("Basic", "basic"), 200),
        ("Bearer p:w", 200),
        (basic("lori:p"), 401),
        (basic("root:p:w"), 401),
        (basic("lori:p:w "), 401),
        ("Bearer lori:p:w", 401),
        ("Bearer", 401),
        ("Basic ?", 401),
        ("Basic ü", 401),
        ("Digest p:w", 401),
        ("", 401),
    ],
)
def test_passwords(given: str, status: int) -> None:
    assert answer({**OWN, "authorization": given}, password=PASSWORD) == status


def test_no_password_and_two() -> None:
    assert answer(OWN, password=PASSWORD) == 401
    right = {**OWN, "authorization": basic(PASSWORD)}
    assert answer(right, ("authorization", basic("a:b")), password=PASSWORD) == 401


def test_health_needs_no_password_but_a_host() -> None:
    assert answer(OWN, password=PASSWORD, method="GET", path="/health") == 200
    assert answer(OWN, password=PASSWORD, method="POST", path="/health") == 401
    assert answer(OWN, password=PASSWORD, method="GET", path="/x/health") == 401
    assert answer({"host": "evil.example"}, method="GET", path="/health") == 403


def test_websockets_are_closed_before_they_are_accepted() -> None:
    assert answer({**OWN, "origin": "https://evil.example"}, type="websocket") == 1008
    assert answer({"host": "evil.example"}, type="websocket") == 1008
    assert answer(OWN, type="websocket", password=PASSWORD) == 1008
    assert answer({**OWN, "origin": f"http://{OWN['host']}"}, type="websocket") == 200
