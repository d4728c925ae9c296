"""Rows reach MLflow once each, whenever it can be reached."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from flows.execution.stage_process import reproduce
from flows.planning import forecast
from flows.tracking.mlflow_store import Store, store_of
from flows.tracking.recorded_outputs import written_by
from flows.tracking.rows import Shipment, append, last_end, new_rows_file, read_from, rows_files
from flows.tracking.sending import Shipper, flatten, ship_all
from flows.tracking.shipping import BackgroundShipping


def client(workspace: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store_of(workspace).uri)


def runs(workspace: Path, condition: str = "") -> list[Any]:
    api = client(workspace)
    experiment = api.get_experiment_by_name("lori")
    return list(api.search_runs([experiment.experiment_id], condition)) if experiment else []


def losses(workspace: Path, run: Any) -> list[tuple[int, float]]:
    history = client(workspace).get_metric_history(run.info.run_id, "loss")
    return sorted((metric.step, metric.value) for metric in history)


def write_stage(rows: Path, stage: str = "train@math", steps: int = 3) -> None:
    append(rows, "start", stage=stage, pid=0)
    append(rows, "params", values={"training": {"learning_rate": 0.1}})
    for step in range(steps):
        append(rows, "metrics", values={"loss": float(step)}, step=step)


def test_flatten() -> None:
    flat = flatten({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": {}, "f": "x", "g@h": True})
    assert flat == {"a.b": "1", "a.c": "[1, 2]", "d": "null", "e": "{}", "f": "x", "g.h": "true"}


def test_long_values_are_cut_and_say_so() -> None:
    (value,) = flatten({"a": "x" * 600}).values()
    assert len(value) == 500
    assert value.endswith("… (600 characters)")


def test_an_incomplete_last_line_is_left_for_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"type": "end"}\nnot json\n{"type": "sta')
    rows, offset = read_from(path, 0)
    assert rows == [{"type": "end", "time": 0.0}]
    assert read_from(path, offset) == ([], offset)
    with path.open("a") as file:
        file.write('rt"}\n')
    assert read_from(path, offset)[0] == [{"type": "start", "time": 0.0}]
    assert last_end(path) == {"type": "end", "time": 0.0}


def test_a_run_holds_what_the_stage_reported(tracked: Path) -> None:
    assert reproduce("prepare") == 0
    assert ship_all(tracked) == 1
    (run,) = runs(tracked)
    assert run.info.run_name == "prepare"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.learning_rate": "0.1", "training.modules": '["q", "v"]'}
    assert run.data.metrics == {"loss": pytest.approx(1 / 3), "score.toy": 0.5}
    assert losses(tracked, run) == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert run.data.tags["dvc.outs"].startswith("out/prepare.json=")
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("toy", "a" * 36)
    assert json.loads(dataset.dataset.profile)["sha256"] == "a" * 64
    assert [file.path for file in client(tracked).list_artifacts(run.info.run_id)] == [
        "prepare.json"
    ]


def test_each_row_is_shipped_once(tracked: Path) -> None:
    rows = new_rows_file(tracked, "train@math")
    write_stage(rows)
    assert ship_all(tracked) == 1
    assert ship_all(tracked) == 0
    append(rows, "metrics", values={"loss": 9.0}, step=3)
    assert ship_all(tracked) == 1
    (run,) = runs(tracked)
    assert losses(tracked, run) == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 9.0)]


def sent_batches(shipper: Shipper, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list to which each `log_batch` of a shipper adds the kinds of its values."""
    batches: list[list[str]] = []
    real = shipper.client.log_batch

    def log_batch(run_id: str, **values: Any) -> None:
        batches.append(sorted(values))
        real(run_id, **values)

    monkeypatch.setattr(shipper.client, "log_batch", log_batch)
    return batches


def test_all_that_a_stage_reported_is_one_request(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = new_rows_file(tracked, "train@math")
    write_stage(rows)
    append(rows, "tags", values={"kind": "toy"})
    shipper = Shipper(tracked, store_of(tracked))
    batches = sent_batches(shipper, monkeypatch)
    assert shipper.ship(rows)
    assert batches == [["metrics", "params", "tags"]]
    (run,) = runs(tracked)
    assert losses(tracked, run) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert run.data.params == {"training.learning_rate": "0.1"}
    assert run.data.tags["kind"] == "toy"


def test_values_beside_a_refused_one_arrive(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = new_rows_file(tracked, "train@math")
    write_stage(rows)
    warnings: list[str] = []
    shipper = Shipper(tracked, store_of(tracked), warnings.append)
    shipper.ship(rows)
    append(rows, "params", values={"training": {"learning_rate": 0.2}})
    append(rows, "metrics", values={"loss": 9.0}, step=3)
    batches = sent_batches(shipper, monkeypatch)
    shipper.ship(rows)
    assert batches == [["metrics", "params"], ["metrics"], ["params"]]
    assert len(warnings) == 1
    (run,) = runs(tracked)
    assert losses(tracked, run)[-1] == (3, 9.0)
    assert run.data.params == {"training.learning_rate": "0.1"}


def test_a_crash_after_sending_and_before_noting_it_doubles_nothing(tracked: Path) -> None:
    rows = new_rows_file(tracked, "train@math")
    write_stage(rows)
    ship_all(tracked)
    shipment = Shipment.of(rows)
    shipment.offset, shipment.run_id = 0, None
    shipment.save()
    ship_all(tracked)
    (run,) = runs(tracked)
    assert losses(tracked, run) == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_more_metrics_and_params_than_fit_a_batch(tracked: Path) -> None:
    rows = new_rows_file(tracked, "train@math")
    write_stage(rows, steps=1500)
    append(rows, "params", values={f"p{number}": number for number in range(250)})
    ship_all(tracked)
    (run,) = runs(tracked)
    assert len(losses(tracked, run)) == 1500
    assert len(run.data.params) == 251


def test_a_child_is_below_its_pipeline_whichever_is_shipped_first(tracked: Path) -> None:
    parent, child = new_rows_file(tracked, "pipeline"), new_rows_file(tracked, "train@math")
    append(parent, "start", stage="pipeline", pid=0)
    write_stage(child)
    where = parent.relative_to(tracked).as_posix()
    Shipment(Shipment.of(child).path, parent=where, tags={"mlflow.runName": "math"}).save()
    Shipper(tracked, store_of(tracked)).ship(child)
    (above,) = runs(tracked, "tags.`lori.stage` = 'pipeline'")
    (below,) = runs(tracked, "tags.`lori.stage` = 'train@math'")
    assert below.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert (below.info.run_name, below.data.tags["lori.task"]) == ("math", "math")


def test_a_skipped_stage_is_linked_to_the_run_that_made_its_output(tracked: Path) -> None:
    made = new_rows_file(tracked, "train@math")
    write_stage(made)
    append(made, "tags", values={"dvc.outs": "out=123"})
    parent = new_rows_file(tracked, "pipeline")
    append(parent, "start", stage="pipeline", pid=0)
    append(parent, "skipped", stage="train@math", outs="out=123")
    append(parent, "skipped", stage="train@nlu", outs="out=456")
    shipper = Shipper(tracked, store_of(tracked))
    shipper.ship(made)
    shipper.ship(parent)
    (maker,) = runs(tracked, "tags.`lori.stage` = 'train@math'")
    (run,) = runs(tracked, "tags.`lori.stage` = 'pipeline'")
    assert run.data.tags["lori.skipped.train.math"] == maker.info.run_id
    assert run.data.tags["lori.skipped.train.nlu"] == "unknown"


def test_a_failed_and_a_killed_stage_end_as_such(tracked: Path) -> None:
    failed, killed = new_rows_file(tracked, "train@math"), new_rows_file(tracked, "train@nlu")
    write_stage(failed)
    append(failed, "error", message="loss is nan at step 3", exit_code=1)
    write_stage(killed, "train@nlu")  # process 0 does not exist
    ship_all(tracked)
    (one,) = runs(tracked, "tags.`lori.task` = 'math'")
    (two,) = runs(tracked, "tags.`lori.task` = 'nlu'")
    assert (one.info.status, two.info.status) == ("FAILED", "KILLED")
    assert one.data.tags["lori.error"] == "loss is nan at step 3"


@pytest.mark.parametrize("end", ["error", None])
def test_a_run_that_failed_is_not_tagged_with_older_outputs(tracked: Path, end: str | None) -> None:
    assert reproduce("prepare") == 0
    ship_all(tracked)
    again = new_rows_file(tracked, "prepare")
    write_stage(again, "prepare")  # process 0 does not exist: without an end it was killed
    if end:
        append(again, end, message="loss is nan", exit_code=1)
    ship_all(tracked)
    tagged = {run.info.status: "dvc.outs" in run.data.tags for run in runs(tracked)}
    assert tagged == {"FINISHED": True, "FAILED" if end else "KILLED": False}


def test_a_run_is_tagged_only_with_the_outputs_that_it_wrote(tracked: Path) -> None:
    assert (reproduce("prepare"), reproduce("train@math")) == (0, 0)
    facts = tracked / "metrics/train/math.json"
    (rows,) = (path for path in rows_files(tracked) if path.parent.name == "train@math")
    said = rows.read_text()
    hashes = written_by(rows, tracked)
    assert list(hashes) == ["metrics/train/math.json"]
    # The facts of the file are `stage` and `parameters`.
    append(rows, "tags", values={"lori.stage": "train@math"})
    assert written_by(rows, tracked) == hashes
    append(rows, "tags", values={"lori.stage": "another"})
    assert written_by(rows, tracked) == {}
    rows.write_text(said)
    facts.unlink()
    facts.write_text("{}")  # the stage ran alone: DVC has not recorded what it wrote
    assert written_by(rows, tracked) == {}


def test_a_run_does_not_end_before_it_began_though_the_clock_was_set_back(tracked: Path) -> None:
    rows = new_rows_file(tracked, "train@math")
    write_stage(rows)
    append(rows, "end")
    lines = [json.loads(text) for text in rows.read_text().splitlines()]
    for number, each in enumerate(lines):
        each["time"] = 2e9 - 60 * number
    rows.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    ship_all(tracked)
    (run,) = runs(tracked, "tags.`lori.task` = 'math'")
    assert (run.info.start_time, run.info.end_time) == (2_000_000_000_000,) * 2
    assert forecast.measured(tracked, "train@math") == 0.0


def test_a_refused_row_does_not_block_the_rest(tracked: Path) -> None:
    rows, said = new_rows_file(tracked, "train@math"), list[str]()
    write_stage(rows)
    append(rows, "params", values={"training": {"learning_rate": 0.2}})  # MLflow never changes one
    ship_all(tracked, said.append)
    append(rows, "params", values={"training": {"learning_rate": 0.3}})
    append(rows, "artifact", path="nowhere.txt")
    append(rows, "metrics", values={"score.math": 1.0}, step=None)
    ship_all(tracked, said.append)
    (run,) = runs(tracked)
    assert run.data.metrics["score.math"] == 1.0
    assert any("refused" in line for line in said)
    assert any("nowhere.txt" in line for line in said)


def test_an_unreachable_server_is_one_warning_and_shipped_later(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        store = Store(f"http://127.0.0.1:{taken.getsockname()[1]}", "lori", None)
        rows, said = new_rows_file(tracked, "train@math"), list[str]()
        write_stage(rows)
        shipping = BackgroundShipping(tracked, store, said.append, rows)
        shipping.start()
        assert not shipping.finish(60)
    (line,) = said
    assert "lori track" in line
    assert "\n" not in line
    assert ship_all(tracked) == 1
    assert len(losses(tracked, runs(tracked)[0])) == 3


def test_files_come_oldest_first_and_pipelines_before_their_stages(tmp_path: Path) -> None:
    old, new, parent = (
        tmp_path / ".lori/rows" / name for name in ("a/2.jsonl", "a/1.jsonl", "pipeline/3.jsonl")
    )
    for moment, path in enumerate((old, new, parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"type": "start", "time": moment + 1}) + "\n")
    assert rows_files(tmp_path) == [parent, old, new]


def test_the_store_is_here_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here = store_of(tmp_path)
    assert here.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert here.artifacts == (tmp_path / "mlruns").as_uri()
    named = store_of(tmp_path, {"tracking": {"uri": "http://host", "experiment": "mine"}})
    assert named == Store("http://host", "mine", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    assert store_of(tmp_path, {"tracking": {"uri": "http://host"}}).uri == "http://other"


def test_preparing_a_current_database_changes_nothing(tracked: Path) -> None:
    from flows.tracking.mlflow_store import prepare

    uri = store_of(tracked).uri
    before = (tracked / "mlflow.db").read_bytes()
    prepare(uri)
    assert (tracked / "mlflow.db").read_bytes() == before
