"""MLflow's names: a run, a registered model; and the state of a workspace behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import find, primary
from flows.lineage.named import Named
from flows.tracking import registry as reg
from flows.tracking.registry import Registry, clear_errors
from flows.tracking.sending import HASHES_TAG
from flows.versioning import snapshot
from flows.versioning.snapshot import SNAPSHOTS, Snapshot
from lori_core.core.errors import InputError


def of_model(word: str, workspace: Path) -> Named:
    """Return the artifact and state that a registered model was made from.

    Args:
        word: `models:/NAME/3`, `models:/NAME@champion` or `models:/NAME` for the champion.
        workspace: whose MLflow store, cache and remotes are asked.

    Raises:
        InputError: there is no such model or version.
    """
    name, _, number = word.removeprefix("models:/").replace("@", "/").partition("/")
    registry = Registry(workspace, make=False)
    version = registry.version(name, number or reg.CHAMPION)
    path = version.tags.get(reg.PATH)
    if path is None:
        raise InputError(f"{version}: was not registered by this project: it has no {reg.PATH}")
    folder = workspace / SNAPSHOTS / f"{name}-{version.number}"
    if not (folder / "snapshot" / snapshot.LOCK).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        registry.download(version, "snapshot", folder)
    state = _state(str(version), folder / "snapshot", workspace)
    _check(state, folder, {path: version.tags.get(reg.MD5, "")}, str(version))
    return Named(state, find(state, path))


def of_run(run_id: str, workspace: Path) -> Named:
    """Return the state that a pipeline's run left, and what a stage's run made in it.

    Raises:
        InputError: there is no such run, or it left no state.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    registry = Registry(workspace, make=False)
    with clear_errors(registry.store.uri):
        try:
            run = registry.client.get_run(run_id)
        except MlflowException:
            raise InputError(
                f"{run_id}: no such run in MLflow at {registry.store.uri}; mlflow ui lists them"
            ) from None
        parent = run.data.tags.get("mlflow.parentRunId", run_id)
        folder = workspace / SNAPSHOTS / parent
        if not (folder / "snapshot" / snapshot.LOCK).is_file():
            _check_kept(registry.client, parent)
            folder.mkdir(parents=True, exist_ok=True)
            download_artifacts(
                artifact_uri=f"runs:/{parent}/snapshot",
                dst_path=str(folder),
                tracking_uri=registry.store.uri,
            )
    state = _state(f"run {run_id[:8]}", folder / "snapshot", workspace)
    if parent != run_id:
        outs = (out.rpartition("=") for out in run.data.tags.get(HASHES_TAG, "").split())
        _check(state, folder, {path: md5 for path, _, md5 in outs}, state.label)
    stage = state.stages.get(run.data.tags.get("dvc.stage", ""))
    return Named(state, primary(stage) if stage else None)


def _check_kept(client: Any, run_id: str) -> None:
    if not any(item.path == "snapshot" for item in client.list_artifacts(run_id)):
        raise InputError(
            f"{run_id}: this run left no state (dvc.lock); name the artifact's path, at a commit"
        )


def _check(state: Snapshot, folder: Path, outs: Mapping[str, str], who: str) -> None:
    """Compare a kept state with what MLflow itself holds of it.

    Raises:
        InputError: its `dvc.lock` is another.
    """
    for path, md5 in outs.items():
        recorded = state.out(path)
        if md5 and (recorded is None or recorded.md5 != md5):
            raise InputError(
                f"{folder / 'snapshot' / snapshot.LOCK}: does not record {path} as {who} has it "
                f"({md5}); delete {folder}, then it is brought from MLflow again"
            )


def _state(label: str, folder: Path, workspace: Path) -> Snapshot:
    """Return a kept state; its files on disk are believed only through their hashes."""
    return snapshot.of_folder(label, folder, workspace)
