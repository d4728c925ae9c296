"""`make clean`: what stages made goes, what somebody put beside it stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made import Made

from flows.versioning import clean as cleaning
from flows.versioning.clean import clean
from lori_core.core.errors import InputError

ROOT = Path(__file__).parents[2]


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")


def test_only_what_stages_made_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "workspace"
    Made(folder)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    monkeypatch.chdir(folder)
    kept = ["data/math/train.jsonl", "metrics/train/math.json", "params.yaml", "dvc.lock"]
    own = ["artifacts/math/own/adapter.json", "artifacts/notes.txt", "mine/x.txt", "reports/a.txt"]
    put(*map(Path, own))
    outside = tmp_path / "elsewhere"
    put(outside / "a.txt")
    shutil.rmtree("artifacts/safety/adapter")
    Path("artifacts/safety/adapter").symlink_to(outside)
    unrecorded = ["artifacts/evaluations/base/half.jsonl", "report/index.html"]  # it was stopped
    put(
        *map(Path, unrecorded),
        Path(".lori/rows/x.jsonl"),
        Path("artifacts/merged/.concat.lori.new/x"),
    )
    Path("artifacts/merged/.gitignore").write_text("/concat\n")
    linked = "artifacts/safety/adapter"
    assert clean(Path()) == [own[0], linked, own[1]]
    for name in [*kept, *own]:
        assert Path(name).is_file(), name
    assert (outside / "a.txt").is_file()
    left = {
        path.as_posix()
        for path in Path("artifacts").rglob("*")
        if path.is_symlink() or path.is_file()
    }
    assert left == {*own[:2], linked}
    assert not any(Path(name).exists() for name in (".lori", "report", "artifacts/merged"))


def test_a_workspace_in_use_is_not_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "artifacts/math/adapter/adapter.json")
    monkeypatch.setattr(cleaning, "pipeline_runs", lambda _: True)
    with pytest.raises(InputError, match="a pipeline runs here"):
        clean(tmp_path)
    assert (tmp_path / "artifacts/math/adapter/adapter.json").is_file()


def test_a_damaged_record_deletes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "artifacts/x/y.json")
    (tmp_path / "dvc.lock").write_text("stages: [")
    assert clean(tmp_path) == [str(tmp_path / "artifacts/x/y.json")]
    assert "dvc.lock: cannot be read; the outputs it lists are left" in capsys.readouterr().err
    (tmp_path / "dvc.lock").write_text("stages: {a: {outs: [{path: ../x}, {path: artifacts}]}}")
    put(tmp_path.parent / "x")
    assert clean(tmp_path) == [str(tmp_path / "artifacts/x/y.json")]
    assert (tmp_path.parent / "x").is_file()
