"""Guard a server against requests of foreign web pages and of other users of the machine.

Any page in a browser can send requests to loopback, with its own origin (`Origin`) or under a host
name that it lets resolve to 127.0.0.1 (`Host`); any other user of the machine can, too. `Guard`
wraps a server, checks host, origin and password, and refuses other requests and WebSockets.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from flows.access import NAMES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: With any port, because a tunnel to this machine may start at another port.
OWN_HOST = re.compile(rf"({'|'.join(map(re.escape, NAMES))})(:\d{{1,5}})?", re.IGNORECASE)


def own_origins(port: int) -> list[str]:
    """Return the origins of the pages that a server on this port serves itself."""
    return [f"http://{name}:{port}" for name in NAMES]


@dataclass(frozen=True)
class Refusal:
    """The response that is sent instead of the server's."""

    status: int
    text: str


@dataclass(frozen=True)
class Guard:
    """An ASGI application that passes only allowed requests to another one.

    Attributes:
        app: the guarded application.
        port: the port it listens on.
        password: `user:password` that each request must have; None if `app` checks it itself.
        open_paths: paths that may be read without a password, for health checks.
        hosts: further host names of the server, each with its port unless it is the scheme's
            default (`prefect:4200`).
        origins: origins whose pages may use the server besides its own pages on loopback
            (`https://team.example.org`).
    """

    app: App
    port: int
    password: str | None = None
    open_paths: tuple[str, ...] = ("/health",)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on to `app`."""
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.text})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            if refusal.status == 401:
                headers.append((b"www-authenticate", b'Basic realm="lori", charset="UTF-8"'))
            start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
            await send(start)
            await send({"type": "http.response.body", "body": f"{refusal.text}\n".encode()})

    def _refusal(self, scope: Scope) -> Refusal | None:
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or not self._is_own_host(hosts[0]):
            return Refusal(403, "the Host header does not name this server")
        if not self._is_own_page(scope, hosts[0]):
            return Refusal(403, "pages of other origins may not use this server")
        if self.password is not None and not self._is_open(scope):
            headers = _values(scope, b"authorization")
            if len(headers) != 1 or not _is_password(headers[0], self.password):
                return Refusal(401, "the password is in .lori/password, in the workspace")
        return None

    def _is_own_host(self, host: str) -> bool:
        return OWN_HOST.fullmatch(host) is not None or host.lower() in self.hosts

    def _is_own_page(self, scope: Scope, host: str) -> bool:
        """Return whether a request comes from no page, from an allowed page, or is a link."""
        allowed = {f"http://{host}".lower(), *own_origins(self.port), *self.origins}
        origins = _values(scope, b"origin")
        if origins:
            return all(origin.lower() in allowed for origin in origins)
        # Browsers load images and scripts without an origin, but with the saved password.
        sites = set(_values(scope, b"sec-fetch-site"))
        link = (_values(scope, b"sec-fetch-mode"), _values(scope, b"sec-fetch-dest"))
        followed = scope.get("method") == "GET" and link == (["navigate"], ["document"])
        return followed or sites <= {"same-origin", "none"}

    def _is_open(self, scope: Scope) -> bool:
        return scope.get("method") == "GET" and scope["path"] in self.open_paths


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_password(header: str, password: str) -> bool:
    """Return whether a header holds the password: basic, or as a bearer token without the user."""
    scheme, _, credentials = header.partition(" ")
    expected = password.encode()
    if scheme.lower() == "bearer":
        return hmac.compare_digest(credentials.strip().encode(), expected.partition(b":")[2])
    if scheme.lower() != "basic":
        return False
    try:
        return hmac.compare_digest(base64.b64decode(credentials.strip(), validate=True), expected)
    except (binascii.Error, ValueError):
        return False
