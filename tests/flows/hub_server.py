"""A model hub on loopback that takes what is uploaded, or refuses it."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Hub(ThreadingHTTPServer):
    """Speaks as much of the hub's protocol as an upload of small files needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.tokens: set[str] = set()
        self.repositories: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.refusal = 0  # a status to answer everything with


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.tokens.add(self.headers["Authorization"].removeprefix("Bearer "))
        if self.server.refusal:
            self._answer(self.server.refusal, {"error": "not for you"})
        elif self.path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said['organization']}/{said['name']}"
            known = name in self.server.repositories
            self.server.repositories.setdefault(name, said)
            self._answer(409 if known else 200, {"url": f"{self.server.url}/me/adapter"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif self.path == "/api/models/me/adapter/preupload/main":
            named = [item["path"] for item in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in named]
            self._answer(200, {"files": modes})
        elif self.path == "/api/models/me/adapter/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            where = f"{self.server.url}/me/adapter/commit/{'a' * 40}"
            self._answer(200, {"commitUrl": where, "commitOid": "a" * 40})
        else:
            self._answer(404, {"error": f"{self.path}: not spoken here"})

    def do_GET(self) -> None:
        name = self.path.removeprefix("/api/models/")
        if name in self.server.repositories:
            private = self.server.repositories[name]["visibility"] == "private"
            self._answer(200, {"id": name, "private": private})
        else:
            self._answer(404, {"error": "no such file"})

    def _answer(self, status: int, said: dict[str, Any]) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Start a hub and let the client use it; it is gone afterwards, and the client not told."""
    with Hub() as running:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
