"""A stage's outputs as Prefect's assets, with their inputs and DVC's hashes."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import Made

from flows.execution import assets
from flows.versioning.snapshot import of_workspace

PARAMS = {"tracking": {"experiment": "my lori"}}


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the events that Prefect's context emits; no server runs."""
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr("prefect.events.emit_event", lambda **event: emitted.append(event))
    return emitted


def upstream(event: dict[str, Any]) -> set[str]:
    """Return the keys of an event's upstream assets."""
    related = event["related"]
    return {r["prefect.resource.id"] for r in related if r["prefect.resource.role"] == "asset"}


def test_an_output_names_its_inputs_and_its_hash(
    folder: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Made(folder)
    tables: dict[str, Any] = {}
    monkeypatch.setattr(
        "prefect.artifacts.create_table_artifact",
        lambda rows, key, description: tables.update({key: rows}),
    )
    warnings: list[str] = []
    run: Any = SimpleNamespace(workspace=folder, params=PARAMS, warn=warnings.append)
    for stage in ("mask@math", "merge@concat"):
        assets.record(run, stage)
    assert warnings == []
    made = {
        event["resource"]["prefect.resource.id"]: event
        for event in events
        if event["event"] == "prefect.asset.materialization.succeeded"
    }
    mask = made["dvc://my-lori/artifacts/math/mask.safetensors"]
    assert upstream(mask) == {"dvc://my-lori/artifacts/math/calibrated"}
    recorded = of_workspace(folder).stages["mask@math"].outs["artifacts/math/mask.safetensors"]
    assert mask["payload"]["md5"] == recorded.md5
    assert mask["payload"]["stage"] == "mask@math"
    assert upstream(made["dvc://my-lori/artifacts/merged/concat"]) == {
        "dvc://my-lori/artifacts/math/adapter",
        "dvc://my-lori/artifacts/safety/adapter",
    }
    assert [row["role"] for row in tables["assets-mask-math"]] == ["input", "output"]
    assert tables["assets-mask-math"][1]["md5"] == recorded.md5


def test_the_graph_leads_from_data_to_the_merge(folder: Path) -> None:
    Made(folder)
    lines = assets.graph(folder).splitlines()
    assert lines[:2] == ["```mermaid", "flowchart LR"]
    names = {
        line.split('["')[1].split("<br/>")[0]: line.split("[")[0].strip()
        for line in lines
        if '["' in line
    }
    edges = [line.strip() for line in lines if "-->" in line]
    path = ["data/math/train.jsonl", "math/calibrated", "math/mask.safetensors", "math/adapter"]
    path.append("merged/concat")
    for first, second in itertools.pairwise(path):
        assert f"{names[first]} --> {names[second]}" in edges
    md5 = of_workspace(folder).stages["merge@concat"].outs["artifacts/merged/concat"].md5
    assert any(f"merged/concat<br/>{md5[:8]}" in line for line in lines)
    assert not any("evaluations" in line for line in lines)


def test_a_stage_without_a_record_has_no_assets(folder: Path, events: list[dict[str, Any]]) -> None:
    warnings: list[str] = []
    run: Any = SimpleNamespace(workspace=folder, params={}, warn=warnings.append)
    assets.record(run, "mask@math")
    Made(folder)
    assets.record(run, "mask@other")
    assert events == []
    assert warnings == []


def test_a_broken_server_is_a_warning(
    folder: Path, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Made(folder)

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr("prefect.artifacts.create_table_artifact", broken)
    warnings: list[str] = []
    run: Any = SimpleNamespace(workspace=folder, params={}, warn=warnings.append)
    assets.record(run, "mask@math")
    assert warnings == ["mask@math: its assets are not shown in Prefect: no server"]
