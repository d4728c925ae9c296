"""A workspace's adapters as MLflow's logged models, and their answers as tables.

Each adapter of `dvc.lock` gets one logged model, with its scores linked to the test sets. The run
that made the adapter gets a table of answers for each task; MLflow's evaluation view compares them
row by row. Publishing again adds only what is new. The adapters' bytes stay in DVC.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import Lineage, Node
from flows.lineage.measured import evaluation, read_metrics, rows_of
from flows.lineage.named import Named
from flows.lineage.why import lineage_of
from flows.tracking import logged_models
from flows.tracking.logged_models import KEY, MD5, PATH, Measurement
from flows.tracking.sending import HASHES_TAG, REFUSALS, Shipper
from flows.versioning.dvc.lock_file import StageEntry
from flows.versioning.recorded_hashes import hashes_text
from flows.versioning.snapshot import LOCK, of_workspace
from lori_core.core.errors import LoriError
from lori_core.core.files.atomic import dumps
from lori_core.core.redaction import redact, redacted
from lori_core.evaluation.rows import row_of

#: The kinds of artifacts that get a logged model.
KINDS = ("adapter", "merged adapter", "full model")
#: The folder of the tables in a run, and the most rows of one: the UI loads a whole table.
TABLES, TABLE_ROWS = "answers", 500
#: The columns of a table; MLflow's view groups by the first one.
COLUMNS = ("prompt", "output", "parsed", "answer", "correct", "id")
#: The tag by which MLflow's UI finds a run's tables.
TABLES_TAG = "mlflow.loggedArtifacts"
#: The tag of a run with the hash of the evaluation whose answers its tables hold.
ANSWERS_TAG = "lori.answers"


def publish(
    workspace: Path,
    client: Any,
    experiment_id: str,
    warn: Callable[[str], None] = lambda line: None,
) -> int:
    """Log the workspace's adapters and scores that MLflow does not have yet.

    Args:
        workspace: the workspace.
        client: an `MlflowClient`.
        experiment_id: the experiment of the models.
        warn: called with a line for each adapter that MLflow refuses.

    Returns:
        The number of new logged models.

    Raises:
        InputError: `dvc.lock` is damaged.
        MlflowException: MLflow cannot be reached.
    """
    if not (workspace / LOCK).is_file():
        return 0
    lineage = lineage_of(Named(of_workspace(workspace), None), remote=False)
    return Publisher(workspace, client, experiment_id, lineage, warn).publish()


def publisher(workspace: Path, warn: Callable[[str], None]) -> Callable[[Shipper], None]:
    """Return a function that publishes a workspace's adapters through a shipper's client."""

    def publish_through(shipper: Shipper) -> None:
        try:
            publish(workspace, shipper.client, shipper.experiment_id, warn)
        except LoriError as error:  # the rows were sent; a later run or `lori track` tries again
            warn(f"the adapters are not logged as MLflow's models: {error}")

    return publish_through


class Publisher:
    """Logs the adapters of one lineage.

    Args:
        workspace: the workspace.
        client: an `MlflowClient`.
        experiment_id: the experiment of the models.
        lineage: the adapters, with their runs and scores as `lineage_of` returns them.
        warn: called with a line for each adapter that MLflow refuses.
    """

    def __init__(
        self,
        workspace: Path,
        client: Any,
        experiment_id: str,
        lineage: Lineage,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.workspace = workspace
        self.client = client
        self.experiment_id = experiment_id
        self.lineage = lineage
        self.warn = warn
        self.names = {node.key: node.name for node in lineage.nodes.values() if node.key}

    def publish(self) -> int:
        """Log all adapters; return the number of new logged models."""
        from mlflow.exceptions import MlflowException

        nodes = [n for n in self.lineage.nodes.values() if n.kind in KINDS and n.key]
        known = logged_models.by_artifact(
            self.client, self.experiment_id, (node.key for node in nodes), KINDS
        )
        created = 0
        for node in nodes:
            try:
                created += self._publish(node, known.get((node.key, node.entry.md5)))
            except MlflowException as error:
                if error.error_code not in REFUSALS:
                    raise
                self.warn(f"MLflow refused {node.name}: {str(error).splitlines()[0]}")
        self._tables_of_base()
        return created

    def model_id(self, node: Node) -> str:
        """Return the id of an adapter's logged model, which is created if it is missing."""
        known = logged_models.by_artifact(self.client, self.experiment_id, [node.key], KINDS)
        model = known.get((node.key, node.entry.md5)) or self._create(node, self._run(node.stage))
        return str(model.model_id)

    def _publish(self, node: Node, model: Any) -> bool:
        """Log one adapter, its scores and its answers; return whether its model is new."""
        run, new = self._run(node.stage), model is None
        model = model or self._create(node, run)
        measuring = evaluation(self.lineage.snapshot, node.name, node.entry.md5)
        judged_in = self._run(measuring)
        run = run or judged_in
        if run is not None:
            now = int(time.time() * 1000)
            logged_models.add_metrics(self.client, model, run, self._measured(node), now)
            if measuring is not None:
                self._tables(run, node.name, measuring)
        return new

    def _create(self, node: Node, run: str | None) -> Any:
        from mlflow.entities import LoggedModelOutput

        tags = redacted({PATH: node.name, MD5: node.entry.md5, KEY: node.key, **_more_tags(node)})
        model_id = logged_models.create(
            self.client,
            self.experiment_id,
            logged_models.name_of(node.name),
            tags,
            run,
            redacted(self._params(node)),
            node.kind,
        )
        if run is not None:
            self.client.log_outputs(run, [LoggedModelOutput(model_id, 0)])
        return self.client.get_logged_model(model_id)

    def _params(self, node: Node) -> dict[str, str]:
        """Return type, base, rank, sparsity, size and parents of an adapter as text."""
        own = node.metadata
        facts = own.facts if own else {}
        parents = [self.names.get(key, key) for key in (own.parents if own else ())]
        values = {
            "type": type_of(node),
            "base": facts.get("base"),
            "task": facts.get("task"),
            "rank": facts.get("rank"),
            "sparsity": facts.get("sparsity"),
            "dtype": facts.get("dtype"),
            "size_bytes": node.entry.size,
            "parents": ", ".join(logged_models.name_of(name) for name in parents),
        }
        return {name: str(value) for name, value in values.items() if value not in (None, "")}

    def _measured(self, node: Node) -> Iterator[Measurement]:
        """Yield an adapter's scores with their intervals, each with its test set."""
        stage = evaluation(self.lineage.snapshot, node.name, node.entry.md5)
        for task, score in node.facts.get("scores", {}).items():
            name = f"{task}/test"
            digest = self._digest(stage, name)
            for key in ("score", "low", "high", "over_refusal", "incoherent"):
                value = score.get(key)
                share = value.get("score") if isinstance(value, Mapping) else value
                if isinstance(share, int | float) and digest:
                    yield Measurement(f"{key}.{task}", float(share), name, digest)

    def _digest(self, stage: StageEntry | None, dataset: str) -> str:
        """Return the digest of a test set that a stage read: as its run's data set has it.

        That is the file's SHA-256 if the stage read the data of now, otherwise DVC's hash of what
        the stage read.
        """
        task, _, split = dataset.partition("/")
        path = f"data/{dataset}.jsonl"
        for read in stage.deps.values() if stage else ():
            if path == read.path or path.startswith(f"{read.path}/"):
                splits = self.lineage.pinned.manifest.get("tasks", {}).get(task, {}).get("splits")
                current = self.lineage.pinned.hash_below(read.path) == read.md5
                return str((splits or {}).get(split, {}).get("sha256")) if current else read.md5
        return ""

    def _run(self, stage: StageEntry | None) -> str | None:
        """Return the MLflow run of a stage's current outputs; None if MLflow has none."""
        if stage is None:
            return None
        outs = hashes_text({path: entry.md5 for path, entry in stage.outs.items()})
        condition = f"tags.`lori.stage` = '{stage.name}' and tags.`{HASHES_TAG}` = '{outs}'"
        order = ["attributes.start_time DESC"]
        runs = self.client.search_runs([self.experiment_id], condition, 1, 1, order)
        return str(runs[0].info.run_id) if runs else None

    def _tables_of_base(self) -> None:
        """Log the base model's answers to the run of its evaluation."""
        stage = self.lineage.snapshot.stages.get("evaluate_base")
        run = self._run(stage)
        if stage is not None and run is not None:
            self._tables(run, "base", stage)

    def _tables(self, run: str, artifact: str, stage: StageEntry) -> None:
        """Log the answers of a model to a run: a table for each task."""
        folder = rows_of(stage)
        metrics = read_metrics(self.lineage.snapshot, stage)
        if folder is None or not metrics:
            return
        md5 = stage.outs[folder].md5
        tags = self.client.get_run(run).data.tags
        if tags.get(ANSWERS_TAG) == md5:
            return
        verdicts = self.workspace / folder / row_of(artifact, metrics)
        tables = json.loads(tags.get(TABLES_TAG, "[]"))
        for path in sorted(verdicts.glob("*.jsonl")):
            if "." not in path.stem:  # other protocols' verdicts are `task.protocol.jsonl`
                name = f"{TABLES}/{path.stem}.json"
                self.client.log_text(run, dumps(table(path)), name)
                tables.append({"path": name, "type": "table"})
        tables = [entry for place, entry in enumerate(tables) if entry not in tables[:place]]
        self.client.set_tag(run, TABLES_TAG, dumps(tables))
        self.client.set_tag(run, ANSWERS_TAG, md5)


def table(path: Path) -> dict[str, Any]:
    """Return the first answer to each of the first 500 items of verdicts, as MLflow's table."""
    rows: dict[str, list[Any]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row: Mapping[str, Any] = json.loads(line)
            if len(rows) == TABLE_ROWS:
                break
            rows.setdefault(str(row.get("id")), [_cell(row.get(name)) for name in COLUMNS])
    return {"columns": list(COLUMNS), "data": list(rows.values())}


def _cell(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def type_of(node: Node) -> str:
    """Return an adapter's type: its training method, or `merge:` and the merge method."""
    facts = node.metadata.facts if node.metadata else {}
    if node.kind == "merged adapter":
        return f"merge: {facts['method']}"
    if facts.get("method"):
        return str(facts["method"])
    return "lori-s" if "sparsity" in facts else "lori-d"


def _more_tags(node: Node) -> dict[str, str]:
    run = node.facts.get("made") or {}
    tags = {"git.commit": run.get("commit")}
    if node.stage is not None:
        command = {"mlflow.source.name": node.stage.command, "mlflow.source.type": "LOCAL"}
        tags |= {"dvc.stage": node.stage.name, **command}
    return {name: str(value) for name, value in tags.items() if value}
