"""New databases are copies of an empty one in the user's cache, of the same version only."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows import new_database
from flows.environment import child_environment
from flows.tracking.mlflow_store import prepare

CREATE = "from flows.server.prefect_server import create_database; create_database()"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / new_database.FOLDER


def migrated(path: Path, *rows: str) -> Path:
    """Create a database as a library's migrations would; return its path."""
    path.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.execute("CREATE TABLE runs (name TEXT)")
    connection.execute("INSERT INTO alembic_version VALUES ('abc')")
    connection.executemany("INSERT INTO runs VALUES (?)", [(row,) for row in rows])
    connection.commit()
    connection.close()
    return path


def content(path: Path) -> list[str]:
    """Return the statements that make the database's schema and its rows."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_kept_database_is_copied_for_its_owner_only(tmp_path: Path, cache: Path) -> None:
    first = migrated(tmp_path / "one" / "own.db")
    assert not new_database.copy(tmp_path / "two.db", "mlflow")
    new_database.keep(first, "mlflow")
    assert new_database.copy(tmp_path / "two.db", "mlflow")
    assert content(tmp_path / "two.db") == content(first)
    assert (tmp_path / "two.db").stat().st_mode & 0o777 == 0o600
    (kept,) = cache.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "one", "two.db"]


def test_the_write_ahead_log_belongs_to_what_is_kept(tmp_path: Path, cache: Path) -> None:
    first = migrated(tmp_path / "one.db")
    connection = sqlite3.connect(first)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE later (name TEXT)")
    connection.commit()
    new_database.keep(first, "mlflow")
    connection.close()
    assert new_database.copy(tmp_path / "two.db", "mlflow")
    assert content(tmp_path / "two.db") == content(first)


def test_a_database_with_rows_is_not_kept(tmp_path: Path, cache: Path) -> None:
    new_database.keep(migrated(tmp_path / "one.db", "a run"), "mlflow")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["two.db", "two.db-wal", "two.db-journal"])
def test_a_file_that_is_there_is_left_alone(tmp_path: Path, cache: Path, name: str) -> None:
    new_database.keep(migrated(tmp_path / "one.db"), "mlflow")
    (tmp_path / name).write_text("mine")
    assert not new_database.copy(tmp_path / "two.db", "mlflow")
    assert (tmp_path / name).read_text() == "mine"
    assert (tmp_path / "two.db").exists() == (name == "two.db")


def test_another_version_or_other_migrations_are_not_used(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_database.keep(migrated(tmp_path / "one.db"), "mlflow")
    assert not new_database.copy(tmp_path / "two.db", "prefect")
    with monkeypatch.context() as patch:
        patch.setattr(new_database, "version", lambda library: "0.0.1")
        assert not new_database.copy(tmp_path / "two.db", "mlflow")
    with monkeypatch.context() as patch:
        patch.setattr(new_database, "MIGRATIONS", {"mlflow": "store"})
        assert not new_database.copy(tmp_path / "two.db", "mlflow")
    assert new_database.copy(tmp_path / "two.db", "mlflow")


def test_a_changed_or_foreign_file_is_not_used(tmp_path: Path, cache: Path) -> None:
    new_database.keep(migrated(tmp_path / "one.db"), "mlflow")
    (kept,) = cache.iterdir()
    kept.chmod(0o620)
    assert not new_database.copy(tmp_path / "two.db", "mlflow")
    kept.chmod(0o600)
    kept.write_bytes(kept.read_bytes().replace(b"abc", b"xyz"))
    assert not new_database.copy(tmp_path / "two.db", "mlflow")
    new_database.keep(tmp_path / "one.db", "mlflow")
    assert new_database.copy(tmp_path / "two.db", "mlflow")


def test_without_a_cache_nothing_is_kept_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORI_CACHE", str(tmp_path / "file" / "cache"))
    new_database.keep(migrated(tmp_path / "one.db"), "mlflow")
    assert not new_database.copy(tmp_path / "two.db", "mlflow")


def test_the_second_mlflow_store_runs_no_migration(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.db import utils

    prepare(f"sqlite:///{tmp_path}/one/mlflow.db")
    (kept,) = cache.iterdir()
    assert os.fsencode(tmp_path) not in kept.read_bytes()
    monkeypatch.setattr(utils, "_upgrade_db", lambda engine: pytest.fail("it was migrated"))
    prepare(f"sqlite:///{tmp_path}/two/mlflow.db")
    assert content(tmp_path / "two" / "mlflow.db") == content(tmp_path / "one" / "mlflow.db")


def test_the_second_prefect_server_runs_no_migration(tmp_path: Path, cache: Path) -> None:
    def create(home: str, program: str) -> None:
        (tmp_path / home).mkdir()
        variables = {"PREFECT_HOME": str(tmp_path / home), "LORI_CACHE": str(cache.parent)}
        environment = dict(child_environment(**variables))
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)

    create("one", CREATE)
    (kept,) = cache.iterdir()
    assert os.fsencode(tmp_path) not in kept.read_bytes()
    create(
        "two", f"from flows.server import prefect_server as server; del server._migrate; {CREATE}"
    )
    assert content(tmp_path / "two" / "prefect.db") == content(tmp_path / "one" / "prefect.db")
