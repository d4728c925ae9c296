"""Files that only their owner may read, whatever the user's umask and the files' past."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flows import access, private
from flows.lock import pipeline_lock
from flows.tracking.mlflow_store import Store, prepare_store
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_json


@pytest.fixture(autouse=True)
def _generous() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    return oct(path.lstat().st_mode & 0o777)


def test_what_is_written_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "secret"
    private.folder(path.parent)
    private.write_text(path, "one")
    assert [mode(p) for p in (path, path.parent, path.parent.parent)] == ["0o600", "0o700", "0o700"]
    path.chmod(0o644)
    private.write_text(path, "two")
    assert (path.read_text(), mode(path)) == ("two", "0o600")
    with open(tmp_path / "log", "ab", opener=private.opener) as log:
        log.write(b"line\n")
    assert mode(tmp_path / "log") == "0o600"


def test_what_is_there_is_narrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("PREFECT_HOME", str(home))
    workspace = tmp_path / "workspace"
    folders = [workspace / name for name in (".lori", ".lori/logs", ".lori/prefect", "mlruns")]
    for folder in folders:
        folder.mkdir(parents=True)
    files = [
        *(workspace / ".lori" / name for name in ("services.json", "logs/a.log", "prefect/x.db")),
        *(workspace / name for name in ("mlflow.db", "mlflow.db-wal", "mlflow.db-shm")),
        workspace / "prefect.toml",
        home / "prefect.db",
    ]
    home.mkdir()
    others = [workspace / "params.yaml", home / "profiles.toml", tmp_path / "elsewhere"]
    for file in (*files, *others):
        file.touch()
    (workspace / "mlflow.db.link").symlink_to(tmp_path / "elsewhere")
    private.tighten(workspace)
    assert {mode(folder) for folder in folders} == {"0o700"}
    assert {mode(file) for file in files} == {"0o600"}
    assert {mode(file) for file in others} == {"0o666"}


def test_a_first_run_makes_private_folders(tmp_path: Path) -> None:
    with pipeline_lock(tmp_path):
        assert mode(tmp_path / ".lori") == "0o700"


def test_mlflows_database_and_what_sqlite_makes_beside_it(
    tmp_path: Path, empty_database: Path
) -> None:
    assert mode(empty_database) == mode(empty_database.with_name("mlflow.db.lock")) == "0o600"
    path = tmp_path / "mlflow.db"
    private.write_text(path, "")
    path.write_bytes(empty_database.read_bytes())
    prepare_store(Store(f"sqlite:///{path}", "x", (tmp_path / "ml runs").as_uri()))
    assert mode(tmp_path / "ml runs") == "0o700"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (x)")
        connection.commit()
        beside = sorted(p.name for p in tmp_path.glob("mlflow.db-*"))
        assert beside == ["mlflow.db-shm", "mlflow.db-wal"]
        assert {mode(p) for p in tmp_path.glob("mlflow.db-*")} == {"0o600"}


def test_the_password_is_random_and_private(tmp_path: Path) -> None:
    first, second = access.new_password(), access.new_password()
    assert first != second
    user, _, secret = first.partition(":")
    assert user == "lori"
    assert len(secret) == 43
    private.folder(tmp_path / ".lori")
    access.write_password(tmp_path, first)
    assert access.password(tmp_path) == first
    assert mode(tmp_path / access.PASSWORD) == "0o600"


def test_a_file_system_without_modes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "opener", lambda path, flags: os.open(path, flags, 0o777))
    with pytest.raises(InputError, match="its file system gives it the mode 777"):
        access.write_password(tmp_path, "lori:secret")
    assert not (tmp_path / access.PASSWORD).exists()


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:5099", True),
        ("http://localhost:5099/", True),
        ("http://127.0.0.1:4299", False),
        ("http://evil.example:5099", False),
        ("https://127.0.0.1:5099", False),
        ("http://127.0.0.1", False),
        ("http://127.0.0.1:port", False),
        ("sqlite:///mlflow.db", False),
    ],
)
def test_the_password_is_given_to_our_own_server_only(url: str, own: bool, tmp_path: Path) -> None:
    assert access.mlflow_access(tmp_path, url) == {}
    write_json(tmp_path / access.STATE, {"ports": {"prefect": 4299, "mlflow": 5099}})
    access.write_password(tmp_path, "lori:secret")
    given = {"MLFLOW_TRACKING_USERNAME": "lori", "MLFLOW_TRACKING_PASSWORD": "secret"}
    assert access.mlflow_access(tmp_path, url) == (given if own else {})
