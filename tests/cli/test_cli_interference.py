"""`lori interference --examples`: what it forecasts, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from lori_cli import main
from lori_core.adapters import adapter_file
from support import random_adapter, refused, tiny


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two adapters, a and b, of tasks of these names."""
    for seed, name in enumerate("ab", start=1):
        adapter_file.save(random_adapter(key=name, seed=seed, alpha=1), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_forecast_is_printed_and_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["interference", "a", "b", "--examples", "2", "--weights", "0.5,0.25", "-o", "out"]
    assert main([*argv, "--tasks", "bundled-math,bundled-nlu"]) == 0
    shown = capsys.readouterr().out
    assert "Forecast of the excess loss, nats per example (2 validation examples per task" in shown
    assert "Recommended method by the forecast: " in shown
    found = json.loads((folder / "out" / "interference.json").read_text())["forecast"]
    assert found["weights"] == {"bundled-math": 0.5, "bundled-nlu": 0.25}
    row = found["tasks"]["bundled-math"]
    assert list(row["terms"]) == ["bundled-nlu"]
    assert row["methods"]["concat"]["excess"] == pytest.approx(row["terms"]["bundled-nlu"])
    assert row["measured"] == row["merged_loss"] - row["own_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "0.5"], "--weights: only with --examples"),
        (["--tasks", "bundled-math,bundled-nlu"], "--tasks: only with --examples"),
        (["--examples", "0"], "'0'; allowed are whole numbers from 1 to"),
        (["--examples", "x"], "'x'; allowed are whole numbers from 1 to"),
        (["--examples", "2", "--weights", "nan"], "--weights: 'nan'; expected numbers from"),
        (["--examples", "2", "--weights", ""], "--weights: ''; expected numbers from"),
        (["--examples", "2", "--weights", "1,2,3"], "--weights: 3 weights for 2 adapters"),
        (["--examples", "2"], "--tasks: "),
        (["--examples", "2", "--tasks", "bundled-math"], "--tasks: 1 tasks for 2 adapters"),
        (["--examples", "2", "--tasks", "bundled-math,"], "each adapter needs a task of its own"),
        (
            ["--examples", "2", "--tasks", "bundled-math,bundled-nlu", "--base", "random:gpt2"],
            "whose config differ",
        ),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in refused(capsys, "interference", "a", "b", "-o", "x", *options)
    assert not (folder / "x").exists()


def test_a_base_whose_tokenizer_has_no_end_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny("llama")[1], folder / "base")
    path = folder / "base" / "tokenizer_config.json"
    without = json.loads(path.read_text()) | {"eos_token": None, "pad_token": None}
    path.write_text(json.dumps(without))
    argv = ["interference", "a", "b", "--examples", "2", "--base", "base", "-o", "x"]
    assert main([*argv, "--tasks", "bundled-math,bundled-nlu"]) == 2
    assert "base: its tokenizer has no end-of-sequence token" in capsys.readouterr().err
    assert not (folder / "x").exists()


def test_a_task_without_targets_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data" / "a").mkdir(parents=True)
    row = {"prompt": "question", "target": ""}
    (folder / "data" / "a" / "validation.jsonl").write_text(json.dumps(row) + "\n")
    argv = ("interference", "a", "b", "--examples", "2", "--tasks", "a,bundled-nlu", "-o", "x")
    message = refused(capsys, *argv)
    assert "--examples: a has no validation example with a target" in message
    assert not (folder / "x").exists()
