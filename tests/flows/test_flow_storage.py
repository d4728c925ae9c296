"""The DVC remote: one setting, pushes that cost nothing but themselves when they fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stores import s3

from flows.versioning import storage
from flows.versioning.data import pin
from flows.versioning.storage import Pushing, configure
from lori_cli import main
from lori_core.core.errors import ConfigError


def reproduced(toy: Path, stage: str = "prepare") -> None:
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-q", stage], cwd=toy, check=True, text=True
    )


def files(remote: Path) -> int:
    return sum(path.is_file() for path in remote.rglob("*")) if remote.exists() else 0


def section(remote: Path | str, **more: Any) -> dict[str, Any]:
    return {"remote": str(remote), "retries": 0} | more


def test_a_folder_becomes_the_default_remote_once(toy: Path, tmp_path: Path) -> None:
    assert configure(toy, str(tmp_path / "remote"))
    assert f"url = {tmp_path / 'remote'}" in (toy / ".dvc/config").read_text()
    assert not configure(toy, str(tmp_path / "remote"))
    assert configure(toy, str(tmp_path / "other"))


def test_a_url_whose_extra_is_missing_is_refused(toy: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'lori\[azure\]'"):
        configure(toy, "azure://container/path")
    assert "azure" not in (toy / ".dvc/config").read_text()


@pytest.mark.parametrize("when", ["stage", "end"])
def test_what_stages_made_is_sent(toy: Path, tmp_path: Path, when: str) -> None:
    said: list[str] = []
    pushing = Pushing(toy, section(tmp_path / "remote", push=when), said.append)
    pushing.start()
    reproduced(toy)
    pushing.stage("prepare")
    assert pushing.finish(everything=when == "end") == []
    assert files(tmp_path / "remote") == 1
    assert said == []


def test_never_sends_nothing_and_touches_nothing(toy: Path, tmp_path: Path) -> None:
    before = (toy / ".dvc/config").read_text()
    pushing = Pushing(toy, section(tmp_path / "remote", push="never"), print)
    pushing.start()
    pushing.stage("prepare")
    assert pushing.finish(everything=True) == []
    assert (toy / ".dvc/config").read_text() == before


def test_a_push_that_fails_is_tried_again_then_reported(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "remote"
    blocked.write_text("a file where a folder should be")
    reproduced(toy)
    monkeypatch.setattr(storage, "WAITS", (0.0,))
    tries: list[str] = []
    real = storage.push

    def counted(workspace: Path, target: str) -> str:
        tries.append(target)
        return real(workspace, target)

    monkeypatch.setattr(storage, "push", counted)
    said: list[str] = []
    pushing = Pushing(toy, section(blocked, push="stage", retries=2), said.append)
    pushing.start()
    pushing.stage("prepare")
    failures = pushing.finish(everything=False)
    assert tries == ["prepare"] * 3
    assert len(failures) == 1
    assert failures[0].startswith("prepare: ")
    assert said == [
        f"prepare was not pushed to {blocked} ({failures[0].removeprefix('prepare: ')}); the run "
        "goes on, and dvc push sends it later"
    ]


def test_a_remote_that_comes_back_gets_it_at_the_next_try(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    remote.write_text("")
    reproduced(toy)
    monkeypatch.setattr(storage, "WAITS", (0.0,))
    real = storage.push

    def mended(workspace: Path, target: str) -> str:
        failed = real(workspace, target)
        if failed:
            remote.unlink()
        return failed

    monkeypatch.setattr(storage, "push", mended)
    pushing = Pushing(toy, section(remote, retries=1), print)
    pushing.start()
    assert pushing.finish(everything=True) == []
    assert files(remote) > 0


@pytest.mark.real
def test_what_a_run_sent_to_s3_is_restored_in_a_clean_clone(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone, out = tmp_path / "clone", "out/prepare.json"
    reproduced(toy)
    assert pin(toy)
    with s3(["bucket"]) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        pushing = Pushing(toy, section("s3://bucket/lori", push="end"), print)
        pushing.start()
        assert pushing.finish(everything=True) == []
        (clone / ".dvc").mkdir(parents=True)
        for name in ("data.dvc", "dvc.lock", "dvc.yaml", "params.yaml", ".dvc/config"):
            shutil.copy(toy / name, clone / name)
        monkeypatch.chdir(clone)
        assert main(["why", out]) == 0
        assert f"{out}  [artifact]" in capsys.readouterr().out
        assert main(["restore", out, "back.json"]) == 0
    assert (clone / "back.json").read_bytes() == (toy / out).read_bytes()
    assert not (clone / ".dvc/cache").exists()
