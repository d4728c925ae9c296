"""Prefect's assets: what a stage wrote, from what, with DVC's hashes.

A stage that ran emits one `prefect.asset.materialization.succeeded` event for each output, with its
inputs as upstream assets. Prefect Cloud draws its asset graph from them. Prefect's open-source UI
has no page for assets, so the same facts are shown there as artifacts: a table on each stage in the
run's graph, and the graph of all assets as a picture, `lori-assets`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flows.execution.stage_run import PipelineRun
from flows.lineage.ancestry import EVALUATIONS, Lineage, primary
from flows.versioning.dvc.lock_file import Entry
from flows.versioning.objects import Objects
from flows.versioning.snapshot import LOCK, of_workspace
from lori_core.core.errors import LoriError
from lori_core.core.redaction import redact

#: The scheme of the assets' keys; the experiment's name and the path in the workspace follow.
SCHEME = "dvc"
_FORBIDDEN = re.compile(r"[^A-Za-z0-9._/@-]")


def key_of(path: str, params: Mapping[str, Any]) -> str:
    """Return the key of an asset: `dvc://EXPERIMENT/PATH`, with `tracking.experiment`."""
    experiment = (params.get("tracking") or {}).get("experiment") or "lori"
    return f"{SCHEME}://{_FORBIDDEN.sub('-', f'{experiment}/{path}')}"


def record(run: PipelineRun, stage: str) -> None:
    """Record the assets of a stage that ran; a failure is a warning, since the work is done.

    Args:
        run: the pipeline run; its workspace's `dvc.lock` has the stage.
        stage: the stage, as `dvc stage list` shows it.
    """
    try:
        recorded = _recorded(run.workspace, stage)
        if recorded is not None:
            _emit(stage, *recorded, run.params)
            _show_stage(stage, *recorded)
    except Exception as error:  # whatever Prefect's server does, the run goes on
        run.warn(f"{stage}: its assets are not shown in Prefect: {redact(str(error))[:200]}")


def _emit(
    stage: str, inputs: Iterable[Entry], outputs: Iterable[Entry], params: Mapping[str, Any]
) -> None:
    """Emit an event for each output of a stage, with its inputs as upstream assets."""
    from prefect.assets import Asset, AssetProperties
    from prefect.context import AssetContext
    from prefect.states import Completed

    keys = {item.path: key_of(item.path, params) for item in (*inputs, *outputs)}
    context = AssetContext(
        direct_asset_dependencies={Asset(key=keys[item.path]) for item in inputs},
        downstream_assets={
            Asset(key=keys[item.path], properties=AssetProperties(name=item.path))
            for item in outputs
        },
        materialized_by="dvc",
        materialization_metadata={
            keys[item.path]: {"md5": item.md5, "size_bytes": item.size, "stage": stage}
            for item in outputs
        },
    )
    context.emit_events(Completed())


def _recorded(workspace: Path, stage: str) -> tuple[list[Entry], list[Entry]] | None:
    """Return the inputs and outputs of a stage of `dvc.yaml`; None if they are not recorded.

    The inputs are data and artifacts, without source files; for a merge, the merged adapters.
    """
    if not (workspace / LOCK).is_file():
        return None
    try:
        snapshot = of_workspace(workspace)
        entry = snapshot.stages.get(stage)
        if entry is None or not entry.outs:
            return None
        inputs = Lineage(snapshot, Objects(workspace, remote=False), []).inputs_of(primary(entry))
    except LoriError:  # another stage is writing dvc.lock; this stage's assets are left out
        return None
    return inputs, list(entry.outs.values())


def _show_stage(stage: str, inputs: Iterable[Entry], outputs: Iterable[Entry]) -> None:
    """Attach a table of a stage's inputs and outputs to its task run."""
    from prefect.artifacts import create_table_artifact

    rows = [_row("input", item) for item in inputs] + [_row("output", item) for item in outputs]
    key = re.sub("[^a-z0-9]+", "-", f"assets-{stage}".lower()).strip("-")
    create_table_artifact(rows, key=key, description=f"What {stage} read and wrote, by DVC's hash")


def _row(role: str, entry: Entry) -> dict[str, Any]:
    return {"role": role, "path": entry.path, "md5": entry.md5, "bytes": entry.size}


def show_graph(workspace: Path) -> None:
    """Show the graph of the workspace's assets as an artifact of the flow run."""
    from prefect.artifacts import create_markdown_artifact

    if (workspace / LOCK).is_file():
        about = "Data, masks, adapters and merged adapters, with DVC's hashes"
        create_markdown_artifact(graph(workspace), key="lori-assets", description=about)


def graph(workspace: Path) -> str:
    """Return the graph of a workspace's adapters and their inputs as Mermaid in Markdown."""
    snapshot = of_workspace(workspace)
    targets = [name for name in snapshot.producers if name.startswith("artifacts/")]
    targets = [name for name in targets if not name.startswith(f"{EVALUATIONS}/")]
    nodes = Lineage(snapshot, Objects(workspace, remote=False), targets).nodes
    drawn = {name: f"n{number}" for number, name in enumerate(nodes) if name in targets}
    drawn |= {name: f"n{len(nodes) + n}" for n, name in enumerate(nodes) if _is_train(name)}
    lines = [f'  {drawn[name]}["{_label(name)}<br/>{nodes[name].entry.md5[:8]}"]' for name in drawn]
    lines += [
        f"  {drawn[source]} --> {drawn[name]}"
        for name in drawn
        for source in nodes[name].inputs
        if source in drawn
    ]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def _is_train(name: str) -> bool:
    return name.startswith("data/") and name.endswith("/train.jsonl")


def _label(path: str) -> str:
    return path.removeprefix("artifacts/").replace('"', "")
