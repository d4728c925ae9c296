"""Adapters as MLflow's logged models: their parameters, metrics, tables and versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made import Made

from flows.lineage import why
from flows.serving import adapter_models, gate
from flows.tracking.mlflow_store import KIND, KIND_TAG, Store, experiment_id
from flows.tracking.registry import Registry
from flows.tracking.rows import append, new_rows_file
from flows.tracking.sending import HASHES_TAG, ship_all
from flows.versioning.recorded_hashes import hashes_text, output_hashes
from lori_core.core.files.atomic import sha256_file
from lori_core.pipeline import params_file

MERGED = "artifacts/merged/concat"
STAGES = (
    "calibrate@math",
    "calibrate@safety",
    "train@math",
    "train@safety",
    "merge@concat",
    "evaluate_merged@concat",
)


def ran(folder: Path, *stages: str) -> None:
    """Write the rows that stages of the finished workspace would have left."""
    for stage in stages:
        rows = new_rows_file(folder, stage)
        append(rows, "start", stage=stage, pid=0)
        append(rows, "end")
        outs = hashes_text(output_hashes(folder, stage))
        append(rows, "tags", values={HASHES_TAG: outs})


def published(folder: Path) -> dict[str, Any]:
    """Send all rows and adapters; return the logged models by name."""
    warnings: list[str] = []
    ship_all(folder, then=adapter_models.publisher(folder, warnings.append))
    assert warnings == []
    registry = Registry(folder)
    found = registry.client.search_logged_models([registry.experiment_id()])
    names = [model.name for model in found]
    assert len(set(names)) == len(names)
    return {model.name: model for model in found}


@pytest.fixture
def models(folder: Path) -> dict[str, Any]:
    Made(folder, right={"math": 20})
    ran(folder, *STAGES)
    return published(folder)


def test_each_adapter_is_one_model(folder: Path, models: dict[str, Any]) -> None:
    assert sorted(models) == [
        "math-adapter",
        "math-calibrated",
        "merged-concat",
        "safety-adapter",
        "safety-calibrated",
    ]
    merged = models["merged-concat"]
    entry = json.loads((folder / MERGED / "adapter.json").read_text())
    size = sum(path.stat().st_size for path in (folder / MERGED).iterdir())
    assert merged.model_type == "merged adapter"
    assert merged.params == {
        "type": "merge: concat",
        "base": entry["base"]["name"],
        "rank": str(entry["modules"][0][3]),
        "sparsity": merged.params["sparsity"],
        "dtype": entry["dtype"],
        "size_bytes": str(size),
        "parents": "math-adapter, safety-adapter",
    }
    assert merged.tags["lori.path"] == MERGED
    assert models["math-adapter"].params["parents"] == "math-calibrated"
    assert [models[f"math-{name}"].params["type"] for name in ("adapter", "calibrated")] == [
        "lori-s",
        "lori-d",
    ]
    # The bytes stay in DVC.
    assert not any((folder / "mlruns").rglob("*.safetensors"))


def test_scores_are_linked_to_their_test_sets(folder: Path, models: dict[str, Any]) -> None:
    merged = models["merged-concat"]
    digest = sha256_file(folder / "data/math/test.jsonl")[:36]
    scores = {m.key: m for m in merged.metrics}
    assert scores["score.math"].value == 0.5
    assert scores["score.math"].dataset_name == "math/test"
    assert scores["score.math"].dataset_digest == digest
    assert scores["score.safety"].dataset_name == "safety/test"
    assert scores["score.math"].run_id == merged.source_run_id
    registry = Registry(folder)
    run = registry.client.get_run(merged.source_run_id)
    assert run.info.run_name == "merge@concat"
    assert [output.model_id for output in run.outputs.model_outputs] == [merged.model_id]
    (best,) = registry.client.search_logged_models(
        [registry.experiment_id()],
        filter_string="metrics.`score.math` >= 0",
        datasets=[{"dataset_name": "math/test"}],
        order_by=[{"field_name": "metrics.score.math", "ascending": False}],
        max_results=1,
    )
    assert best.name == "merged-concat"


def test_shares_of_over_refusal_and_incoherence_are_metrics(tmp_path: Path) -> None:
    Made(tmp_path)
    lineage = why.lineage_of(why.resolve(str(tmp_path / MERGED), Path()), remote=False)
    node = lineage.nodes[MERGED]
    shares = {"over_refusal": {"score": 0.25, "n": 8}, "incoherent": {"score": None, "n": 0}}
    node.facts["scores"] = {"safety": node.facts["scores"]["safety"] | shares}
    publisher = adapter_models.Publisher(tmp_path, None, "0", lineage)
    assert {m.name: m.value for m in publisher._measured(node)} == {
        "score.safety": 0.75,
        "low.safety": 0.0,
        "high.safety": 1.0,
        "over_refusal.safety": 0.25,
    }


def test_answers_are_tables_of_the_run(folder: Path, models: dict[str, Any]) -> None:
    client = Registry(folder).client
    run = models["merged-concat"].source_run_id
    table = client.load_table(models["merged-concat"].experiment_id, "answers/math.json", [run])
    assert list(table.columns) == list(adapter_models.COLUMNS)
    assert len(table) == 40
    assert table["id"][3] == "math-3"
    assert table["correct"].tolist() == [number < 20 for number in range(40)]


def test_publishing_again_adds_nothing_and_a_new_score_once(
    folder: Path, models: dict[str, Any]
) -> None:
    before = {name: model.model_id for name, model in models.items()}
    again = published(folder)
    assert {name: model.model_id for name, model in again.items()} == before
    assert len(again["merged-concat"].metrics) == len(models["merged-concat"].metrics)
    Made(folder, right={"math": 30})
    ran(folder, "evaluate_merged@concat")
    better = published(folder)
    assert {name: model.model_id for name, model in better.items()} == before
    newest = [m.value for m in better["merged-concat"].metrics if m.key == "score.math"]
    assert sorted(newest) == [0.5, 0.75]


def test_a_version_points_to_the_adapters_model(folder: Path, models: dict[str, Any]) -> None:
    params = params_file.load(folder / "params.yaml")
    assert gate.run_gate(folder, params, send=False).promoted
    registry = Registry(folder)
    version = registry.client.get_model_version("lori", "1")
    model_id = models["merged-concat"].model_id
    assert version.source == f"models:/{model_id}"
    files = sorted(path for path in (folder / "mlruns").rglob("adapter_model.safetensors"))
    assert len(files) == 1
    other = registry.add(
        "lori-second",
        folder / "nothing",
        {"lori.content_key": models["merged-concat"].tags["lori.content_key"]},
        None,
        model=lambda: model_id,
    )
    assert other.source == version.source
    linked = registry.client.get_logged_model(model_id).tags["mlflow.modelVersions"]
    assert [entry["name"] for entry in json.loads(linked)] == ["lori", "lori-second"]
    assert sorted((folder / "mlruns").rglob("adapter_model.safetensors")) == files


def test_an_experiment_is_one_of_model_training(folder: Path) -> None:
    Made(folder)
    registry = Registry(folder)
    client, uri = registry.client, registry.store.uri
    old = client.create_experiment("old")
    own = client.create_experiment("own", tags={KIND_TAG: "genai_development"})
    kinds = []
    for name in ("new", "old", "own"):
        found = experiment_id(client, Store(uri, name, None))
        kinds.append(client.get_experiment(found).tags[KIND_TAG])
    assert kinds == [KIND, KIND, "genai_development"]
    assert {experiment_id(client, Store(uri, name, None)) for name in ("old", "own")} == {old, own}
