"""Each example runs, and does what it says."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import lori_core as lori
from lori_core.adapters import adapter_file
from lori_core.config import Bound
from support import random_adapter

EXAMPLES = Path(__file__).parents[1] / "examples"
HERE = ("own_data", "merge_peft", "python_api", "own_gate")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested_and_listed() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(HERE)
    assert [name for name in HERE if f"({name}.py)" not in readme] == []


def test_own_data_are_learned(tmp_path: Path) -> None:
    scores = example("own_data").main(tmp_path)
    assert {name: (score.metric, score.n) for name, score in scores.items()} == {
        "base model": ("accuracy", 8),
        "adapter": ("accuracy", 8),
    }


def test_adapters_of_peft_are_merged_and_given_back(tmp_path: Path) -> None:
    model = example("merge_peft").main(tmp_path, [])
    merged = lori.load_adapter(tmp_path / "merged")
    assert merged.rank == 8
    assert {name.rpartition(".")[2] for name in merged.modules} == {
        "q_proj",
        "v_proj",
        "up_proj",
        "down_proj",
    }
    for name in merged.modules:
        layer = model.base_model.model.get_submodule(name)
        torch.testing.assert_close(layer.get_delta_weight("default"), merged.delta(name))


def test_the_python_api_runs_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = example("python_api").main(tmp_path)
    assert {task: score.n for task, score in scores.items()} == {"math": 8, "nlu": 8}
    assert "merged: rank 16" in capsys.readouterr().out


def test_a_gate_of_ones_own_passes_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = example("own_gate")
    adapter_file.save(random_adapter(), tmp_path / "adapter")
    assert gate.main(tmp_path / "out", tmp_path / "adapter").passed
    assert "mean_words" in capsys.readouterr().out
    gate.RULES = gate.RULES.model_copy(update={"rules": {"mean_words": Bound(at_most=0)}})
    verdict = gate.main(tmp_path / "out", tmp_path / "adapter")
    assert [finding.rule for finding in verdict.failed] == ["mean_words"]


def test_a_project_starts_from_nothing(tmp_path: Path) -> None:
    lori = tmp_path / "lori"
    lori.write_text(f'#!/bin/sh\nexec {sys.executable} -m lori_cli "$@"\n')
    lori.chmod(0o755)
    place = tmp_path / "mine"
    environment = {"BASE": "random:llama", "LORI": str(lori), "LAST": "pull --show 1"}
    done = subprocess.run(
        ["sh", str(EXAMPLES / "from_nothing.sh"), str(place)],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "support: 64 train, 6 validation, 6 test" in done.stdout
    assert "leaves tomorrow.</s>⟧" in done.stdout
    assert (place / "data" / "sales" / "train.jsonl").is_file()
