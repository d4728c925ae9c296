"""The cost of logging for a training stage while the MLflow server answers a second late.

A real MLflow server is behind a proxy that delays every request. A tiny model, with the shortest
steps, is trained with a row at each step; another process sends the rows, as in a run. A stage that
called the server itself would wait for it at every step.

    python -m benchmarks.tracking
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from benchmarks.adapters import show

DELAY = 1.0
EXAMPLES = 400
PARAMS = {
    "model": {"name_or_path": "random:llama", "dtype": "float32"},
    "prompt": {"template": "plain"},
    "lori": {"rank": 8, "lora_alpha": 16, "sparsity": 0.9},
    "training": {"learning_rate": 1e-3, "batch_size": 1, "epochs": 1, "max_length": 128},
    "tasks": {
        "math": {
            "source": "bundled-math",
            "sizes": {"train": EXAMPLES, "test": 8},
            "calibration": {},
            "training": {},
        }
    },
}


def rows(folder: Path) -> list[dict[str, Any]]:
    """Measure in a scratch folder; return a row for each measurement."""
    from flows.tracking.rows import Shipment, new_rows_file
    from lori_core import config
    from lori_core.data.sources import pulling
    from lori_core.methods.loaded_model import load_model
    from lori_core.methods.tuning import Tuning, tune

    params = config.parse(PARAMS, "the benchmark's parameters")
    file = new_rows_file(folder, "train@math")
    tracker = _timed(file)
    with contextlib.chdir(folder), _slow_server(folder) as uri:
        pulling.pull(params)
        Shipment(Shipment.of(file).path, tags={"benchmark": "tracking"}).save()
        with _shipping(folder, file, uri) as shipped:
            tracker.start("train@math")
            session, section = load_model(params), params.phase("math", "training")
            started = time.perf_counter()
            tune(session, Tuning("train@math", "math", "lori-d", section), tracker)
            training = time.perf_counter() - started
            tracker.end()
        steps, arrived = len(tracker.seconds), _steps_arrived(uri)
    logging = sum(tracker.seconds)
    return [
        {"what": "the server answers after", "value": DELAY, "unit": "s"},
        {"what": f"a step, mean of {steps}", "value": 1e3 * training / steps, "unit": "ms"},
        {"what": "logging a step, mean", "value": 1e3 * logging / steps, "unit": "ms"},
        {
            "what": "logging a step, slowest",
            "value": 1e3 * max(tracker.seconds),
            "unit": "ms",
            "goal": "<= 100",
        },
        {
            "what": "logging / training",
            "value": 100 * logging / training,
            "unit": "%",
            "goal": "<= 2",
        },
        {"what": "shipping, in the run's process", "value": float(shipped[0]), "unit": "s CPU"},
        {"what": "steps that arrived, once each", "value": arrived, "unit": f"/ {steps}"},
    ]


def _timed(file: Path) -> Any:
    from lori_core.core.tracking import FileTracker

    class Timed(FileTracker):
        """Records the seconds that each step's row took."""

        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.seconds: list[float] = []

        def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
            started = time.perf_counter()
            super().metrics(values, step)
            if step is not None:
                self.seconds.append(time.perf_counter() - started)

    return Timed(file)


@contextlib.contextmanager
def _slow_server(folder: Path) -> Iterator[str]:
    """Start MLflow and the delaying proxy in front of it; yield the proxy's address."""
    from flows.server.local_api import free_port, wait_until_healthy

    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "stored")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=folder, **quiet)  # type: ignore[call-overload]
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health")
        with _Proxy(f"http://127.0.0.1:{port}") as proxy:
            thread = threading.Thread(target=proxy.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{proxy.server_address[1]}"
            finally:
                proxy.shutdown()
                thread.join()
    finally:
        server.terminate()
        server.wait()


class _Proxy(ThreadingHTTPServer):
    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Held)
        self.target = target


class _Held(BaseHTTPRequestHandler):
    """Passes a request on, late."""

    def do_GET(self) -> None:
        time.sleep(DELAY)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {k: v for k, v in self.headers.items() if k.lower() in ("content-type", "accept")}
        url = f"{cast(_Proxy, self.server).target}{self.path}"
        request = urllib.request.Request(url, body, headers, method=self.command)  # noqa: S310
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310 - on loopback
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def _shipping(folder: Path, file: Path, uri: str) -> Iterator[list[str]]:
    """Send rows from a process of its own, whose CPU seconds are appended to the list."""
    command = [sys.executable, "-m", "benchmarks.tracking", "ship", str(folder), str(file), uri]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    root = Path(__file__).parent.parent
    process = subprocess.Popen(command, cwd=root, **pipes)  # type: ignore[call-overload]
    printed: list[str] = []
    yield printed
    printed.append(process.communicate("done\n")[0].strip())


def _ship(folder: Path, file: Path, uri: str) -> None:
    """Send rows until told to stop, and print the CPU seconds; runs in a process of its own."""
    from flows.tracking.mlflow_store import Store
    from flows.tracking.shipping import BackgroundShipping

    shipping = BackgroundShipping(folder, Store(uri, "lori", None), print, file)
    shipping.start()
    sys.stdin.readline()
    shipping.finish(timeout=60)
    used = os.times()
    print(used.user + used.system)


def _steps_arrived(uri: str) -> int:
    """Return the number of steps that the server has; fail if it has one twice."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lori")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
    if len(set(steps)) < len(steps):
        raise RuntimeError("the server has a step twice")
    return len(steps)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ship"]:
        _ship(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        with tempfile.TemporaryDirectory() as name:
            show(rows(Path(name)))
