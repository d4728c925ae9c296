"""A tracking server that is killed while stages report, and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.server.local_api import free_port, wait_until_healthy
from flows.tracking.mlflow_store import Store
from flows.tracking.rows import append, new_rows_file
from flows.tracking.sending import Shipper
from flows.tracking.shipping import BackgroundShipping
from lori_core.core.tracking import FileTracker

pytestmark = pytest.mark.real
PER_PART = 50


@contextmanager
def server(workspace: Path, port: int) -> Iterator[Callable[[], None]]:
    """Run an MLflow server; yield what kills it as `kill -9` does."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{workspace / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(workspace / "stored")]
    process = subprocess.Popen(
        command,
        cwd=workspace,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def kill() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health")
        yield kill
    finally:
        kill()


def report(rows: Path, part: int) -> None:
    for step in range(part * PER_PART, (part + 1) * PER_PART):
        append(rows, "metrics", values={"loss": 1.0 / (step + 1)}, step=step)


def test_a_server_killed_in_mid_run_has_all_metrics_once_each(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    store = Store(f"http://127.0.0.1:{port}", "lori", None)
    rows = new_rows_file(tracked, "train@math")
    append(rows, "start", stage="train@math", pid=os.getpid())
    with server(tracked, port) as kill:
        report(rows, 0)
        assert Shipper(tracked, store).ship(rows)
        report(rows, 1)
        kill()
        lost = BackgroundShipping(tracked, store, lambda line: None, rows)
        lost.start()
        assert not lost.finish(60)
    with server(tracked, port):
        report(rows, 2)
        append(rows, "end")
        back = BackgroundShipping(tracked, store, lambda line: None, rows)
        back.start()
        assert back.finish(60)
        shipper = Shipper(tracked, store)
        assert not shipper.ship(rows)
        (run,) = shipper.client.search_runs([shipper.experiment_id])
        history = shipper.client.get_metric_history(run.info.run_id, "loss")
        assert run.info.status == "FINISHED"
    assert [m.step for m in sorted(history, key=lambda m: m.step)] == list(range(3 * PER_PART))


def test_a_row_a_step_costs_a_stage_next_to_nothing(tmp_path: Path) -> None:
    """A stage only appends to a file, whatever its server does: far below 2 % of any step."""
    tracker = FileTracker(tmp_path / "rows.jsonl")
    started = time.perf_counter()
    for step in range(1000):
        tracker.metrics({"loss": 1.0, "learning_rate": 1e-3, "grad_norm": 0.5}, step=step)
    assert time.perf_counter() - started < 1.0  # 1 ms a step, on a busy machine
