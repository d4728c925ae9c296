"""A tracking database that version 0.1.0 wrote is read, and written on, by this one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import zstandard

from flows.execution.stage_process import reproduce
from flows.tracking.mlflow_store import store_of
from flows.tracking.sending import ship_all

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "tracking.sqlite.zst"

pytestmark = pytest.mark.real


def test_old_runs_are_found_and_new_ones_join_them(tracked: Path) -> None:
    from mlflow import MlflowClient

    content = zstandard.ZstdDecompressor().decompress(GOLDEN.read_bytes())
    (tracked / "mlflow.db").write_bytes(content)
    assert reproduce("prepare") == 0
    assert ship_all(tracked) == 1
    client = MlflowClient(tracking_uri=store_of(tracked).uri)
    old = client.get_experiment_by_name("lori-smoke")
    runs = client.search_runs([old.experiment_id], "tags.`lori.stage` = 'train@math'")
    weights = GOLDEN.parent / "artifacts" / "math" / "adapter" / "adapter.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [run.data.tags["lori.adapter_sha256"] for run in runs] == [digest]
    new = client.get_experiment_by_name("lori")
    assert [run.info.run_name for run in client.search_runs([new.experiment_id])] == ["prepare"]
