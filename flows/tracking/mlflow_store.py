"""MLflow's tracking store: its address, and the migration of its database under a lock."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flows import access, new_database, private
from flows.environment import quiet_environment
from lori_core.config.params import INSTEAD
from lori_core.core.errors import InputError
from lori_core.core.faults import about
from lori_core.core.redaction import has_secret


@dataclass(frozen=True)
class Store:
    """A tracking server or database, and the experiment of the runs.

    Attributes:
        uri: the tracking URI.
        experiment: the experiment's name.
        artifacts: the artifact location of a new experiment; None for the server's default.
    """

    uri: str
    experiment: str
    artifacts: str | None


def store_of(workspace: Path, params: Mapping[str, Any] | None = None) -> Store:
    """Return the store: `MLFLOW_TRACKING_URI`, else `tracking.uri`, else `mlflow.db` here.

    If it is the server of `make up` in this workspace, its password is put into the environment,
    where MLflow's clients look for it.

    Raises:
        InputError: the address holds a password, which MLflow's client would print and record.
    """
    settings = (params or {}).get("tracking") or {}
    named = {
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI"),
        "params.yaml: tracking.uri": settings.get("uri"),
    }
    where, uri = next(
        ((name, str(uri)) for name, uri in named.items() if uri),
        ("", f"sqlite:///{(workspace / 'mlflow.db').resolve()}"),
    )
    if where and has_secret(uri):
        raise InputError(
            f"{where}: holds a password or token; take it out and {INSTEAD['tracking']}"
        )
    local = sqlite_file(uri) is not None
    os.environ.update(access.mlflow_access(workspace, uri))
    return Store(
        uri=uri,
        experiment=str(settings.get("experiment") or "lori"),
        artifacts=(workspace / "mlruns").resolve().as_uri() if local else None,
    )


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of a `sqlite:///` URI; None for any other URI."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


#: The tag by which MLflow's UI chooses an experiment's pages, and its value for model training.
#: Without the tag MLflow 3 guesses, and opens the pages for GenAI applications.
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"


def experiment_id(client: Any, store: Store) -> str:
    """Return the id of a store's experiment; create the experiment if it is missing.

    An experiment without a kind becomes one of model training; a kind that a user chose stays.

    Args:
        client: an `MlflowClient` of the store.
        store: the store.

    Raises:
        MlflowException: MLflow refuses, for example because the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(store.experiment)
    if experiment is None:
        tags = {KIND_TAG: KIND}
        try:
            return str(client.create_experiment(store.experiment, store.artifacts, tags))
        except MlflowException:  # another process created it in between
            experiment = client.get_experiment_by_name(store.experiment)
            if experiment is None:
                raise
    if KIND_TAG not in experiment.tags and experiment.lifecycle_stage == "active":
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)
    return str(experiment.experiment_id)


def prepare_store(store: Store) -> None:
    """Create a local store's database and artifact folder if they are missing."""
    prepare(store.uri)
    if store.artifacts is not None:
        private.folder(Path(url2pathname(urlsplit(store.artifacts).path)))


def prepare(uri: str) -> None:
    """Create or migrate a SQLite store to this MLflow's schema; do nothing for a server.

    A new store is a copy of an empty one in the user's cache, if there is one.

    Processes that migrate a new database at the same time damage it, so this holds a file lock.
    Only the owner can read a new database and the files that SQLite writes beside it.
    """
    database = sqlite_file(uri)
    if database is None:
        return
    quiet_environment()
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    with about(database), FileLock(f"{database}.lock", mode=0o600):
        new_database.copy(database, "mlflow")
        if _is_current(database):
            return
        is_new = not database.exists()
        if is_new:
            private.write_text(database, "")
        _silence_alembic()
        from mlflow.store.db import utils

        engine = utils.create_sqlalchemy_engine_with_retry(uri)
        try:
            utils._safe_initialize_tables(engine)
            utils._upgrade_db(engine)
        finally:
            engine.dispose()
        if is_new:
            new_database.keep(database, "mlflow")


def _is_current(database: Path) -> bool:
    if not database.exists():
        return False
    from mlflow.store.db.utils import _get_latest_schema_revision

    connection = sqlite3.connect(database)
    try:
        rows = connection.execute("select version_num from alembic_version").fetchall()
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return rows == [(_get_latest_schema_revision(),)]


def _silence_alembic() -> None:
    """Hide the log lines about each migration."""
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
