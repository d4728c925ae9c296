"""A lock on a registered model, between processes of any machines.

MLflow has no lock and no compare-and-set. So each process that wants a model sets a tag of its own
on the model, its claim, and then reads all claims: a process that sees no other claim has the lock.
Two processes cannot both see none, since each sets its claim before it reads.
"""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

PREFIX = "lori.claim."
PAUSE_SECONDS = 0.1
#: A claim older than this belongs to a process that died.
LEASE_SECONDS = 60.0


@contextlib.contextmanager
def claimed(client: Any, name: str, lease: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the lock of a registered model; wait while other processes hold it.

    Args:
        client: an `MlflowClient` of the registry.
        name: the model; it must exist.
        lease: seconds after which another process's unchanged claim is removed.
    """
    claim = _Claim(client, name, lease)
    try:
        claim.take()
        yield
    finally:
        with contextlib.suppress(Exception):  # others remove the claim after the lease
            claim.drop()


class _Claim:
    def __init__(self, client: Any, name: str, lease: float) -> None:
        self.client = client
        self.name = name
        self.lease = lease
        self.own = f"{PREFIX}{uuid.uuid4().hex}"
        self._seen: dict[str, float] = {}

    def take(self) -> None:
        """Set the claim and wait until it is the only one; of several, the first by name wins."""
        while True:
            self.client.set_registered_model_tag(self.name, self.own, socket.gethostname())
            while others := self._others():
                if min(others) < self.own:
                    break
                time.sleep(PAUSE_SECONDS)
            else:
                return
            self.drop()
            while any(other < self.own for other in self._others()):
                time.sleep(PAUSE_SECONDS)

    def drop(self) -> None:
        """Withdraw the claim."""
        self.client.delete_registered_model_tag(self.name, self.own)

    def _others(self) -> list[str]:
        """Return the claims of other processes; remove those that are older than the lease."""
        tags = self.client.get_registered_model(self.name).tags or {}
        claims, now = [], time.monotonic()
        for tag in tags:
            if tag.startswith(PREFIX) and tag != self.own:
                if now - self._seen.setdefault(tag, now) < self.lease:
                    claims.append(tag)
                else:
                    self.client.delete_registered_model_tag(self.name, tag)
        return claims
