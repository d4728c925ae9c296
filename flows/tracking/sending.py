"""Send the rows that stages write to MLflow, each row once.

A pipeline is a parent run; each stage that ran is a child run. The offset is saved after a batch
has arrived. A crash in between sends the batch again, which changes nothing: MLflow stores a metric
with the same key, step, time and value once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from flows.environment import quiet_environment
from flows.tracking.mlflow_store import Store, experiment_id, prepare_store, sqlite_file, store_of
from flows.tracking.recorded_outputs import written_by
from flows.tracking.rows import (
    Row,
    Shipment,
    read_from,
    rows_files,
    stage_of,
    start_of,
)
from flows.tracking.run_facts import dataset_input, stage_tags, user_tags
from flows.versioning.dvc import dvc_files
from flows.versioning.recorded_hashes import hashes_text
from lori_core.core.faults import about
from lori_core.core.processes.stopping import EXIT_CODES
from lori_core.core.redaction import redacted

#: The most metrics, parameters and tags of one request: MLflow accepts 1000 values in all.
METRICS_PER_BATCH = 800
PARAMS_PER_BATCH = 100
PARAM_LENGTH = 500
RUNS_PER_PAGE = 2000
HASHES_TAG = "dvc.outs"
#: MLflow's error codes for rows that it will never accept: malformed, or of a deleted run.
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")

T = TypeVar("T")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as `a.b.c` → text; text over 500 characters is cut, with a note."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[_legal(name)] = _cut(value)
    return flat


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if len(text) <= PARAM_LENGTH:
        return text
    note = f"… ({len(text)} characters)"
    return text[: PARAM_LENGTH - len(note)] + note


def _legal(name: str) -> str:
    """Return a name that MLflow accepts as the key of a metric, parameter or tag."""
    return re.sub(r"[^\w\-. /]", "_", name.replace("@", "."))[:250]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Shipper:
    """Sends the rows files of one workspace to one MLflow store; not thread-safe.

    Any method may raise MLflow's exceptions when MLflow cannot be reached; no row is lost then.
    """

    def __init__(
        self, workspace: Path, store: Store, warn: Callable[[str], None] = lambda line: None
    ) -> None:
        quiet_environment()
        prepare_store(store)
        from mlflow import MlflowClient

        self.workspace = workspace
        self.warn = warn
        self.client = MlflowClient(tracking_uri=store.uri)
        self.experiment_id = experiment_id(self.client, store)

    def ship(self, rows: Path) -> bool:
        """Send the new rows of a rows file; return whether there were any.

        The run is created with the first row, so a stage that did no work has no run.
        """
        resumed = Shipment.of(rows).known
        shipment, sent = Shipment.of(rows), False
        while True:
            new, offset = read_from(rows, shipment.offset)
            if offset == shipment.offset:
                return sent
            # Rows of an older version, or of another writer, may hold secrets.
            new = redacted(new)
            run_id = self._run(rows, shipment, new, resumed)
            self._send(run_id, new, shipment)
            shipment.offset, sent = offset, True
            shipment.save()

    def _run(self, rows: Path, shipment: Shipment, new: list[Row], resumed: bool) -> str:
        """Return the id of a rows file's run; create the run below its parent if needed."""
        if shipment.run_id is not None:
            return shipment.run_id
        name = rows.relative_to(self.workspace).as_posix()
        run_id = self._search(f"tags.`lori.rows` = '{name}'") if resumed else None
        shipment.run_id = run_id or self._create(rows, name, shipment, new)
        shipment.save()
        return shipment.run_id

    def _create(self, rows: Path, name: str, shipment: Shipment, new: list[Row]) -> str:
        stage = stage_of(rows, self.workspace)
        own = redacted(shipment.tags)
        tags = {"lori.stage": stage, "lori.rows": name, **user_tags(), **stage_tags(stage), **own}
        parent = self._parent(shipment)
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        started = int(float(new[0]["time"] if new else 0) * 1000)
        run_name = own.get("mlflow.runName", stage)
        run = self.client.create_run(self.experiment_id, started or None, tags, run_name)
        return str(run.info.run_id)

    def _parent(self, shipment: Shipment) -> str | None:
        """Return the id of the pipeline's run, which is created first."""
        if shipment.parent is None:
            return None
        rows = self.workspace / shipment.parent
        if Shipment.of(rows).run_id is None:
            self.ship(rows)
        return Shipment.of(rows).run_id

    def _search(self, condition: str) -> str | None:
        order = ["attributes.start_time DESC"]
        runs = self.client.search_runs([self.experiment_id], condition, 1, 1, order)
        return str(runs[0].info.run_id) if runs else None

    def _send(self, run_id: str, rows: list[Row], shipment: Shipment) -> None:
        metrics, params, tags = [], {}, {}
        for row in rows:
            match row["type"]:
                case "metrics":
                    metrics.extend(_metrics(row))
                case "params":
                    params.update(flatten(row.get("values") or {}))
                case "start":
                    tags.update(
                        {f"env.{key}": str(value) for key, value in row.get("where", {}).items()}
                    )
                case "tags":
                    values = row.get("values") or {}
                    shipment.hashed |= HASHES_TAG in values
                    tags.update({_legal(key): str(value) for key, value in values.items()})
        skipped = [row for row in rows if row["type"] == "skipped"]
        for stage, producer in self._producing_runs(skipped):
            tags[_legal(f"lori.skipped.{stage}")] = producer or "unknown"
        self._log(run_id, metrics, params, tags)
        for row in rows:
            self._send_single(run_id, row, shipment)

    def _log(
        self, run_id: str, metrics: list[Any], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        parts = zip_longest(
            _batches(metrics, METRICS_PER_BATCH),
            _batches([Param(*pair) for pair in params.items()], PARAMS_PER_BATCH),
            _batches([RunTag(*pair) for pair in tags.items()], PARAMS_PER_BATCH),
        )
        for batch in parts:
            values = zip(("metrics", "params", "tags"), batch, strict=True)
            self._log_batch(run_id, {name: part for name, part in values if part})

    def _log_batch(self, run_id: str, batch: Mapping[str, Sequence[Any]]) -> None:
        """Send values in one request; if MLflow refuses it, send each kind in its own."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(run_id, **batch)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            for name, part in batch.items():
                self._accept(self.client.log_batch, run_id, **{name: part})

    def _send_single(self, run_id: str, row: Row, shipment: Shipment) -> None:
        match row["type"]:
            case "dataset":
                self._accept(self.client.log_inputs, run_id, [dataset_input(row)])
            case "artifact":
                self._artifact(run_id, self.workspace / str(row["path"]), row.get("name"))
            case "end":
                self._accept(self.client.set_terminated, run_id, "FINISHED", _end(row, shipment))
                shipment.ended = True
            case "error":
                message = str(row.get("message", ""))[:5000]
                self._accept(self.client.set_tag, run_id, "lori.error", message)
                stopped = row.get("exit_code") in EXIT_CODES
                status = "KILLED" if stopped else "FAILED"
                self._accept(self.client.set_terminated, run_id, status, _end(row, shipment))
                shipment.ended = True

    def _artifact(self, run_id: str, path: Path, name: str | None) -> None:
        try:
            if path.is_dir():
                self._accept(self.client.log_artifacts, run_id, str(path), name or path.name)
            else:
                self._accept(self.client.log_artifact, run_id, str(path))
        except (FileNotFoundError, PermissionError) as error:
            self.warn(f"{path}: reported as an artifact, but left out ({error.strerror})")

    def _producing_runs(self, skipped: Sequence[Row]) -> Iterator[tuple[str, str | None]]:
        """Yield each skipped stage with the id of the run that wrote its current outputs.

        The newest runs are read in one request; for other outputs there is a search for each stage.
        """
        known: dict[tuple[str, str], str] = {}
        if len(skipped) > 1:
            order, condition = ["attributes.start_time DESC"], f"tags.`{HASHES_TAG}` LIKE '%'"
            count = min(RUNS_PER_PAGE, 2 * len(skipped))
            for run in self.client.search_runs([self.experiment_id], condition, 1, count, order):
                outputs = run.data.tags.get("lori.stage", ""), run.data.tags[HASHES_TAG]
                known.setdefault(outputs, str(run.info.run_id))
        for row in skipped:
            stage, outs = str(row["stage"]), str(row.get("outs") or "")
            condition = f"tags.`lori.stage` = '{stage}' and tags.`{HASHES_TAG}` = '{outs}'"
            yield stage, known.get((stage, outs)) or (self._search(condition) if outs else None)

    def _accept(self, send: Callable[..., Any], *values: Any, **named: Any) -> None:
        """Call `send`; warn about and skip a row that MLflow refuses, so that the rest goes on."""
        from mlflow.exceptions import MlflowException

        try:
            send(*values, **named)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self.warn(f"MLflow refused a row: {str(error).splitlines()[0]}")

    def tag_outputs(self, rows: Path) -> None:
        """Tag the run of a plain `dvc repro` with its outputs' hashes; a flow does that itself.

        A run that wrote other outputs than `dvc.lock` records, as a failed one, gets no tag.
        """
        shipment = Shipment.of(rows)
        if shipment.run_id is None or shipment.hashed or not shipment.ended:
            return
        hashes = written_by(rows, self.workspace)
        if hashes:
            self._accept(self.client.set_tag, shipment.run_id, HASHES_TAG, hashes_text(hashes))
            shipment.hashed = True
            shipment.save()

    def close_if_dead(self, rows: Path) -> None:
        """Terminate a run as `KILLED` if its process is gone but wrote no end (`kill -9`)."""
        shipment = Shipment.of(rows)
        if shipment.run_id is None or shipment.ended or _alive(rows):
            return
        self._accept(self.client.set_terminated, shipment.run_id, "KILLED")
        shipment.ended = True
        shipment.save()


def ship_all(
    workspace: Path,
    warn: Callable[[str], None] = lambda line: None,
    then: Callable[[Shipper], None] = lambda shipper: None,
) -> int:
    """Send all rows that were not sent yet, call `then`; return how many files had new rows.

    They were written while MLflow was not reachable, or by a plain `dvc repro`.

    Raises:
        InputError: `params.yaml` is not readable.
        Exception: whatever MLflow raises when it cannot be reached.
    """
    from flows.lock import shipping_lock

    if not rows_files(workspace):
        return 0
    store = store_of(workspace, read_params(workspace))
    with shipping_lock(workspace), about(sqlite_file(store.uri) or store.uri):
        files = rows_files(workspace)
        shipper = Shipper(workspace, store, warn)
        shipped = sum(shipper.ship(rows) for rows in files)
        newest = {stage_of(rows, workspace): rows for rows in files}
        for rows in files:
            shipper.close_if_dead(rows)
            if newest[stage_of(rows, workspace)] == rows:
                shipper.tag_outputs(rows)
        then(shipper)
        return shipped


def read_params(workspace: Path) -> dict[str, Any]:
    """Return `params.yaml` as plain values, without validation; empty if there is no file.

    Raises:
        InputError: it is not YAML, or not a mapping of sections.
    """
    from lori_core.pipeline import params_file

    path = workspace / "params.yaml"
    content = dvc_files.read(path)
    return params_file.read_values(content, str(path)) if content else {}


def _end(row: Row, shipment: Shipment) -> int:
    """Return when a run ended in Unix milliseconds.

    It is never before the start, even if the clock was set back.
    """
    rows = shipment.path.with_name(shipment.path.name.removesuffix(".shipped"))
    return int(max(float(row["time"]), start_of(rows)) * 1000)


def _metrics(row: Row) -> list[Any]:
    from mlflow.entities import Metric

    moment, step = int(float(row["time"]) * 1000), int(row.get("step") or 0)
    return [
        Metric(_legal(name), float(value), moment, step)
        for name, value in (row.get("values") or {}).items()
        if isinstance(value, int | float)
    ]


def _alive(rows: Path) -> bool:
    first, _ = read_from(rows, 0, limit=4096)
    pid = first[0].get("pid") if first else None
    return isinstance(pid, int) and Path(f"/proc/{pid}").exists()
