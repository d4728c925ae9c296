"""Send rows to MLflow in the background, so that a slow or absent MLflow never delays stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from flows.lock import shipping_lock
from flows.tracking.mlflow_store import Store
from flows.tracking.rows import Shipment, rows_files
from flows.tracking.sending import Shipper
from lori_core.core import faults
from lori_core.core.faults import about
from lori_core.core.redaction import redact
from lori_core.core.tracking import ROWS_FOLDER

INTERVAL_SECONDS = 2.0
RETRY_SECONDS = 30.0


class BackgroundShipping:
    """Sends a pipeline's new rows every two seconds, in a thread of its own.

    The thread also imports MLflow and migrates its database (about ten seconds) while the first
    stages run.

    Args:
        workspace: the workspace of the rows files.
        store: the MLflow store.
        warn: called with a line for each problem.
        pipeline: the pipeline's rows file; the shipments of its stages name it as their parent.
        last: called once, after the last rows were sent.
    """

    def __init__(
        self,
        workspace: Path,
        store: Store,
        warn: Callable[[str], None],
        pipeline: Path,
        last: Callable[[Shipper], None] = lambda shipper: None,
    ) -> None:
        self.workspace = workspace
        self.store = store
        self.warn = warn
        self.pipeline = pipeline
        self.last = last
        self._seen: dict[Path, bool] = {}
        self._finish = threading.Event()
        self._warned = False
        self._shipper: Shipper | None = None
        self._thread = threading.Thread(target=self._work, name="shipping", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def finish(self, timeout: float) -> bool:
        """Send the remaining rows and stop; return whether that succeeded within `timeout` s."""
        self._finish.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._warned

    def _work(self) -> None:
        retry_at = 0.0
        self._close_dead()
        while not self._finish.wait(INTERVAL_SECONDS):
            if time.monotonic() >= retry_at and not self._ship():
                retry_at = time.monotonic() + RETRY_SECONDS
        self._ship(last=True)

    def _close_dead(self) -> None:
        """Terminate the MLflow runs of pipelines that were killed here; only ours is alive."""
        try:
            with shipping_lock(self.workspace), about(self.store.uri):
                dead = [
                    rows
                    for rows in rows_files(self.workspace)
                    if not self._is_ours(rows) and Shipment.of(rows).is_open
                ]
                if dead:
                    self._shipper = Shipper(self.workspace, self.store, self.warn)
                for rows in dead:
                    self._shipper.ship(rows)  # type: ignore[union-attr]
                    self._shipper.close_if_dead(rows)  # type: ignore[union-attr]
        except Exception as error:  # whatever tracking does, training goes on
            reason = redact(" ".join(str(faults.explained(error) or error).split()))
            self.warn(f"MLflow: runs that were killed stay open ({reason})")

    def _is_ours(self, rows: Path) -> bool:
        parent = self.pipeline.relative_to(self.workspace).as_posix()
        return rows == self.pipeline or Shipment.of(rows).parent == parent

    def _files(self) -> list[Path]:
        """Return the rows files of this pipeline and its stages, the pipeline's first."""
        for shipment in (self.workspace / ROWS_FOLDER).rglob("*.jsonl.shipped"):
            rows = shipment.with_name(shipment.name.removesuffix(".shipped"))
            if rows not in self._seen:
                self._seen[rows] = self._is_ours(rows)
        return [self.pipeline, *(rows for rows, ours in self._seen.items() if ours)]

    def _ship(self, *, last: bool = False) -> bool:
        try:
            with shipping_lock(self.workspace), about(self.store.uri):
                if self._shipper is None:
                    self._shipper = Shipper(self.workspace, self.store, self.warn)
                for rows in self._files():
                    self._shipper.ship(rows)
                if last:
                    self.last(self._shipper)
        except Exception as error:  # whatever tracking does, training goes on
            if not self._warned:
                reason = redact(" ".join(str(faults.explained(error) or error).split()))[:200]
                self.warn(
                    f"MLflow at {self.store.uri} cannot be used ({reason}); the work goes on, "
                    "and `lori track` ships its rows later"
                )
            self._warned = True
            return False
        self._warned = False
        return True
