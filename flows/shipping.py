"""Ships rows in the background while stages run: a slow or absent MLflow never holds them up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from flows.lock import shipping_lock
from flows.mlflow_store import Store
from flows.tracking import Shipper

INTERVAL_SECONDS = 2.0
RETRY_SECONDS = 30.0


class BackgroundShipping:
    """Tails the watched rows files every two seconds, in a thread of its own.

    MLflow's import and the first migration (about ten seconds) also happen there, beside the first
    stages.
    """

    def __init__(self, workspace: Path, store: Store, warn: Callable[[str], None]) -> None:
        self.workspace = workspace
        self.store = store
        self.warn = warn
        self._files: list[Path] = []
        self._guard = threading.Lock()
        self._finish = threading.Event()
        self._warned = False
        self._shipper: Shipper | None = None
        self._thread = threading.Thread(target=self._work, name="shipping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def watch(self, rows: Path) -> None:
        """Ship this file too, from now on; it need not exist yet."""
        with self._guard:
            self._files.append(rows)

    def finish(self, timeout: float = 60.0) -> bool:
        """Ship what is left and stop; return whether it went out within `timeout` seconds."""
        self._finish.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._warned

    def _work(self) -> None:
        retry_at = 0.0
        while not self._finish.wait(INTERVAL_SECONDS):
            if time.monotonic() >= retry_at and not self._ship():
                retry_at = time.monotonic() + RETRY_SECONDS
        self._ship()

    def _ship(self) -> bool:
        with self._guard:
            files = list(self._files)
        try:
            with shipping_lock(self.workspace):
                if self._shipper is None:
                    self._shipper = Shipper(self.workspace, self.store, self.warn)
                for rows in files:
                    self._shipper.ship(rows)
        except Exception as error:  # whatever tracking does, training goes on
            if not self._warned:
                reason = " ".join(str(error).split())[:200]
                self.warn(
                    f"MLflow at {self.store.uri} cannot be used ({reason}); the work goes on, "
                    "and `lori track` ships its rows later"
                )
            self._warned = True
            return False
        self._warned = False
        return True
