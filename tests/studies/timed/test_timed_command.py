"""`lori experiment --time-limit`: stopped, killed, resumed and merged, on the tiny model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lori_cli import main
from support import refused

PARAMS = """\
model: {name_or_path: "random:llama", dtype: float32}
lori: {rank: 4, lora_alpha: 8}
training: {learning_rate: 2.0e-3, batch_size: 8, max_length: 256, save_steps: 1}
tasks:
  math:
    source: bundled-math
    sizes: {train: 16, validation: 4, test: 6}
    calibration: {}
    training: {}
evaluation:
  batch_size: 8
  max_new_tokens: {choice: 4, number: 4, code: 4, refusal: 4}
  max_prompt_length: 200
execution: {cpu_stages: 1}
experiments: {seeds: [1], scopes: [model, matrix]}
"""
COMMAND = ("experiment", "granularity", "--time-limit")
ROWS = Path("metrics/experiments/granularity.json")
#: One LoRI-D adapter, two LoRI-S adapters, two scorings.
POINTS = 5


def workspace(folder: Path) -> Path:
    """Make a folder without DVC in which experiments can run."""
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    return folder


class Run:
    """The command in a process of its own; its lines are read as they come."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lori_cli", *COMMAND, "1h"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []

    def read_until(self, start: str) -> str:
        """Return the first line that begins with a text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(start):
                return line
        raise AssertionError(f"{self.lines}; {self.process.communicate()[1]}")

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if any, and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        self.process.communicate()
        return self.process.returncode


def contents(folder: Path) -> Mapping[str, bytes]:
    """Return the adapters' weights and the measurements of all points, by path."""
    own = folder / "artifacts" / "experiments"
    files = [*own.rglob("*.safetensors"), *own.rglob("facts.json")]
    return {str(path.relative_to(own)): path.read_bytes() for path in files}


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / ROWS).read_text())["rows"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the workspace of a run that nothing interrupted."""
    folder = workspace(tmp_path_factory.mktemp("timed") / "whole")
    run = Run(folder)
    run.read_until(f"{POINTS}/{POINTS} ")
    assert run.end() == 0
    return folder


@pytest.mark.real
def test_a_run_stopped_and_killed_ends_with_the_same_rows(whole: Path, tmp_path: Path) -> None:
    folder = workspace(tmp_path / "interrupted")
    first = Run(folder)
    first.read_until("2/5 train-lori-s-")
    assert first.end(signal.SIGTERM) == 128 + signal.SIGTERM
    half = rows(folder)
    assert half
    assert all(row in rows(whole) for row in half)
    second = Run(folder)
    assert second.read_until("5 points") == "5 points: 2 have finished, 3 to run\n"
    second.read_until("4/5 train-lori-s-")
    assert second.end(signal.SIGKILL) == -signal.SIGKILL
    third = Run(folder)
    assert third.read_until("5 points") == "5 points: 4 have finished, 1 to run\n"
    third.read_until("5/5 score-")
    assert third.end() == 0
    assert (folder / ROWS).read_bytes() == (whole / ROWS).read_bytes()
    assert contents(folder) == contents(whole)
    assert (folder / "experiments" / "report" / "index.html").is_file()


@pytest.mark.real
def test_records_of_another_machine_give_its_rows_without_a_model(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace(tmp_path / "merged")
    shutil.copytree(whole / "experiments" / "finished", folder / "experiments" / "finished")
    monkeypatch.chdir(folder)
    assert main([*COMMAND, "1h"]) == 0
    assert "5 points: 5 have finished, 0 to run\n" in capsys.readouterr().out
    assert rows(folder) == rows(whole)
    assert not (folder / "artifacts").exists()
    info = json.loads((folder / ROWS).read_text())["info"]
    assert "torch " in info["versions"]
    assert "CPU cores" in info["machine"] or "NVIDIA" in info["machine"]
    assert "finished" not in info


@pytest.mark.real
def test_a_limit_of_nearly_nothing_leaves_a_workspace_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace(tmp_path / "short")
    monkeypatch.chdir(folder)
    assert main([*COMMAND, "0.001s"]) == 0
    said = capsys.readouterr().out
    assert "time limit: 5 points are left; run the same command again to go on\n" in said
    assert not ROWS.exists()
    assert len(json.loads(Path("experiments/points.json").read_text())) == POINTS + 1
    assert "lori point granularity" in Path("experiments/dvc.yaml").read_text()


@pytest.mark.parametrize("limit", ["0s", "-5m", "10", "10 m", "m", "nan", "infs", "1d", "", "1e3s"])
def test_a_limit_that_is_no_time_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "experiment", "granularity", f"--time-limit={limit}")
    assert "--time-limit" in said
    assert "as in 90s, 10m or 2h" in said


@pytest.mark.parametrize("option", ["plan", "write", "here"])
def test_a_limit_is_not_combined_with_commands_that_have_none(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace(tmp_path / "own"))
    said = refused(capsys, *COMMAND, "1m", f"--{option}")
    assert f"--{option}: cannot be combined with --time-limit" in said
    assert not Path("experiments").exists()


def test_a_base_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace(tmp_path / "own"))
    said = refused(capsys, *COMMAND, "1m", "--base", "random:lama")
    assert "--base: random model 'lama' is unknown; did you mean 'llama'?" in said
    said = refused(capsys, *COMMAND, "1m", "--base", "owner/name@main")
    assert "--base: a hub model needs its commit" in said
    assert Path("params.yaml").read_text() == PARAMS
    assert not Path("experiments").exists()
