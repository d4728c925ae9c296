"""Two processes that train one adapter, against one; and what a quantised base makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lori_core.adapters import adapter_file
from lori_core.core.tracking import NullTracker
from lori_core.data.sources import pulling
from lori_core.pipeline import params_file, results, running
from lori_core.training.distributed import Group, processes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the smoke profile's data."""
    folder = tmp_path_factory.mktemp("parallel")
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pulling.pull(params_file.load())
    return folder


@pytest.fixture
def workspace(pulled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(pulled, folder)
    monkeypatch.chdir(folder)
    return folder


def calibrated(workspace: Path, *changes: str) -> dict[str, torch.Tensor]:
    """Calibrate in a process of its own, as the pipeline does; return B of every module."""
    params_file.apply(workspace / "params.yaml", "smoke", changes)
    env = {k: v for k, v in os.environ.items() if k != "DVC_STAGE"}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "lori_cli", "stage", "calibrate", "math"],
        cwd=workspace, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    adapter = adapter_file.load(results.calibrated_path("math"))
    return {name: adapter.B(name) for name in adapter.modules}


@pytest.mark.real
def test_two_processes_make_the_adapter_of_one(workspace: Path) -> None:
    # 32 examples in batches of 5 and two to a step: the last batch has 2, the last step one batch.
    same = ["training.batch_size=5", "training.gradient_accumulation_steps=2"]
    one = calibrated(workspace, *same)
    two = calibrated(workspace, *same, "training.processes=2")
    rows = sorted((workspace / ".lori/rows/calibrate@math").glob("*.jsonl"))
    assert len(rows) == 2  # rank 0 alone reports
    parts = calibrated(workspace, *same, "training.processes=2", "training.sharding=full")
    for other in (two, parts):
        assert other.keys() == one.keys()
        for name, B in one.items():
            torch.testing.assert_close(other[name], B, rtol=1e-3, atol=1e-5)


def test_every_row_goes_to_one_process() -> None:
    shares = [Group(rank, 3).share(list(range(8))) for rank in range(3)]
    assert shares == [([0, 3, 6], False), ([1, 4, 7], False), ([2, 5], False)]
    assert Group(2, 3).share(["only"]) == (["only"], True)
    assert Group(0, 3).share(["only"]) == (["only"], False)


def test_one_process_starts_nobody() -> None:
    with processes(1, ["no_such_module"]):
        assert "LORI_RANK" not in os.environ


def test_fewer_gpus_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lori_core.core.errors import InputError

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(InputError, match="2 need a GPU each, and this stage has 1"):  # noqa: SIM117
        with processes(2, ["no_such_module"]):
            pass


@pytest.mark.real
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_base_trains_and_is_scored(
    bits: str, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params_file.apply(workspace / "params.yaml", "smoke", [f"model.quantization={bits}"])
    params = params_file.load()
    for name in ("calibrate", "mask", "train", "evaluate_adapters"):
        running.run(params, name, "math", NullTracker())
    adapter = adapter_file.load(results.adapter_path("math"))
    assert any(adapter.B(name).abs().sum() > 0 for name in adapter.modules)
    assert (workspace / "metrics/evaluate/adapters/math.json").is_file()
    assert "MatMul8bitLt" not in caplog.text
