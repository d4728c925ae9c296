"""Resolve MLflow's names, a run or a registered model, to a snapshot and an artifact in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import find, primary
from flows.lineage.named import Named
from flows.tracking import registry as reg
from flows.tracking.logged_models import MD5, PATH
from flows.tracking.mlflow_errors import clear_errors
from flows.tracking.registry import Registry
from flows.tracking.sending import HASHES_TAG
from flows.versioning import snapshot
from flows.versioning.snapshot import SNAPSHOTS, Snapshot
from lori_core.core.errors import InputError


def of_model(word: str, workspace: Path) -> Named:
    """Return the artifact that a registered model was made from, in its snapshot.

    Args:
        word: `models:/NAME/3`, `models:/NAME@champion` or `models:/NAME` for the champion.
        workspace: the workspace whose MLflow store, cache and remotes are used.

    Raises:
        InputError: there is no such model or version.
    """
    name, _, number = word.removeprefix("models:/").replace("@", "/").partition("/")
    registry = Registry(workspace, make=False)
    version = registry.version(name, number or reg.CHAMPION)
    path = version.tags.get(PATH)
    if path is None:
        raise InputError(f"{version}: was not registered by this project: it has no {PATH}")
    folder = workspace / SNAPSHOTS / f"{name}-{version.number}"
    if not (folder / "snapshot" / snapshot.LOCK).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        registry.download(version, "snapshot", folder)
    saved = snapshot.of_folder(str(version), folder / "snapshot", workspace)
    _check(saved, folder, {path: version.tags.get(MD5, "")}, str(version))
    return Named(saved, find(saved, path))


def of_run(run_id: str, workspace: Path) -> Named:
    """Return the snapshot that a pipeline's run saved; for a stage's run, with its main output.

    Raises:
        InputError: there is no such run, or it saved no snapshot.
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
            _check_saved(registry.client, parent)
            folder.mkdir(parents=True, exist_ok=True)
            download_artifacts(
                artifact_uri=f"runs:/{parent}/snapshot",
                dst_path=str(folder),
                tracking_uri=registry.store.uri,
            )
    saved = snapshot.of_folder(f"run {run_id[:8]}", folder / "snapshot", workspace)
    if parent != run_id:
        outs = (out.rpartition("=") for out in run.data.tags.get(HASHES_TAG, "").split())
        _check(saved, folder, {path: md5 for path, _, md5 in outs}, saved.label)
    stage = saved.stages.get(run.data.tags.get("dvc.stage", ""))
    return Named(saved, primary(stage) if stage else None)


def _check_saved(client: Any, run_id: str) -> None:
    if not any(item.path == "snapshot" for item in client.list_artifacts(run_id)):
        raise InputError(
            f"{run_id}: this run saved no snapshot (dvc.lock); name the artifact's path at a commit"
        )


def _check(saved: Snapshot, folder: Path, outs: Mapping[str, str], who: str) -> None:
    """Compare a saved snapshot with the hashes in MLflow's tags.

    Raises:
        InputError: its `dvc.lock` records other hashes.
    """
    for path, md5 in outs.items():
        recorded = saved.out(path)
        if md5 and (recorded is None or recorded.md5 != md5):
            raise InputError(
                f"{folder / 'snapshot' / snapshot.LOCK}: does not record {path} as {who} has it "
                f"({md5}); delete {folder}, and it is downloaded from MLflow again"
            )
