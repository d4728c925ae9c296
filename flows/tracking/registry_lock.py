"""One process at a time on a registered model, on whatever machines they run.

MLflow has no lock and no compare-and-set. So each process that wants a model leaves a tag of its
own on it and then reads all such tags: whoever sees no other has the model. Two cannot both see
none, since then each would have read before the other wrote.
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
#: A claim that stands longer is of a process that died.
LEASE_SECONDS = 60.0


@contextlib.contextmanager
def claimed(client: Any, name: str, lease: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold a registered model alone, waiting for those that hold it.

    Args:
        client: an `MlflowClient` of the registry.
        name: the model; it must exist.
        lease: seconds after which another's claim that does not change is removed.
    """
    claim = _Claim(client, name, lease)
    try:
        claim.take()
        yield
    finally:
        with contextlib.suppress(Exception):  # if MLflow is gone: others remove it after the lease
            claim.drop()


class _Claim:
    def __init__(self, client: Any, name: str, lease: float) -> None:
        self.client = client
        self.name = name
        self.lease = lease
        self.own = f"{PREFIX}{uuid.uuid4().hex}"
        self._seen: dict[str, float] = {}

    def take(self) -> None:
        """Claim until there is no other claim; of several that claim, the first by name stays."""
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
        """Return the others' claims; those of the dead are removed."""
        tags = self.client.get_registered_model(self.name).tags or {}
        found, now = [], time.monotonic()
        for tag in tags:
            if tag.startswith(PREFIX) and tag != self.own:
                if now - self._seen.setdefault(tag, now) < self.lease:
                    found.append(tag)
                else:
                    self.client.delete_registered_model_tag(self.name, tag)
        return found
