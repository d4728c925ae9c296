import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lori_cli import main
from lori_core.adapters import adapter_file
from support import refused

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lori_cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("run", "plan", "stage", "inspect", "export", "report", "track"):
        assert f"\n    {command} " in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lori_cli import _parser; _parser().format_help();"
        "heavy = {'torch', 'pydantic', 'dvc', 'prefect', 'mlflow', 'transformers'};"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "--profile", "smokey"], "profile 'smokey' is unknown; did you mean 'smoke'"),
        (["run", "--set", "lori.sparsity=1"], "lori.sparsity: input should be less than 1"),
        (["run", "--set", "lori.rnk=1"], "lori.rnk: unknown key; did you mean 'rank'"),
        (["stage", "calibrat", "math"], "stage 'calibrat' is unknown; did you mean 'calibrate'"),
        (["stage", "calibrate", "maths"], "item 'maths' is unknown; did you mean 'math'"),
        (["stage", "report", "math"], "takes no item, got 'math'"),
        (["stage", "calibrate", "math"], "data/math/train.jsonl: no such file"),
        (["stage", "mask", "math"], "artifacts/math/calibrated: no adapter here"),
        (["inspect", "nothing"], "nothing: neither an adapter's folder nor a mask"),
        (["report"], "report/summary.json: no finished run here yet"),
        (["export", "nothing", "--to", "peft", "out"], "nothing: no adapter here"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    workspace: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    before = {path: path.read_bytes() for path in workspace.rglob("*.yaml")}
    assert message in refused(capsys, *argv)
    assert {path: path.read_bytes() for path in workspace.rglob("*.yaml")} == before
    assert not (workspace / "metrics").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.name_or_path", "random:lama", "random model 'lama' is unknown; did you mean"),
        ("model.name_or_path", "pypi:llm-smol", "model package 'llm-smol' is unknown; did you"),
        ("model.name_or_path", "no-such-folder", "'no-such-folder' is no folder, and no hub id"),
        ("model.name_or_path", "owner/name", "a hub model needs its commit"),
        ("model.name_or_path", "empty", "empty: no config.json in this model folder"),
        ("model.name_or_path", "weightless", "weightless: no weights here (neither"),
        ("lori.target_modules", "[q_prj]", "'q_prj' matches no linear module of this model"),
    ],
)
def test_a_model_that_cannot_be_used_is_named(
    workspace: Path, capsys: pytest.CaptureFixture[str], key: str, value: str, message: str
) -> None:
    from lori_core.data.sources import pulling
    from lori_core.pipeline import params_file

    (workspace / "empty").mkdir()
    (workspace / "weightless").mkdir()
    (workspace / "weightless" / "config.json").write_text("{}")
    params_file.apply(Path("params.yaml"), None, [f"{key}={value}"])
    pulling.pull(params_file.load())
    assert message in refused(capsys, "stage", "calibrate", "math")
    assert not (workspace / "artifacts").exists()


def test_a_command_reaches_this_machine_past_a_proxy(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "a.org")
    assert main(["profiles"]) == 0
    for name in ("no_proxy", "NO_PROXY"):
        assert os.environ[name] == "a.org,localhost,127.0.0.1,::1"


def test_a_full_disk_is_reported_before_anything_is_written(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    assert "0 MiB free; a run needs 1 GiB" in refused(capsys, "pull")
    assert not (workspace / "data").exists()


def test_a_failed_stage_reports_its_error_in_its_rows(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setenv("LORI_ROWS", str(workspace / "rows.jsonl"))
    refused(capsys, "stage", "mask", "math")
    rows = [json.loads(line) for line in (workspace / "rows.jsonl").read_text().splitlines()]
    assert [row["type"] for row in rows] == ["start", "params", "error"]
    assert rows[-1]["exit_code"] == 2


def test_inspect_prints_facts_and_export_writes_a_peft_folder(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from support import random_adapter

    adapter = random_adapter()
    assert adapter.mask is not None
    adapter_file.save(adapter, workspace / "adapter")
    assert main(["inspect", "adapter"]) == 0
    printed = capsys.readouterr().out
    assert "adapter adapter: verified" in printed
    assert "rank         4" in printed
    assert f"({adapter.mask.count:,} of {adapter.mask.total:,} kept)" in printed
    assert main(["export", "adapter", "--to", "peft", "out"]) == 0
    assert {path.name for path in Path("out").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_debug_shows_the_traceback(workspace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lori_cli", "--debug", "report"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" in done.stderr
