"""How many points run at a time."""

from pathlib import Path

import pytest

from flows.execution import sharing
from lori_core.pipeline import params_file
from studies.timed.workers import Capacity, capacity

SMOKE = Path(__file__).parents[3] / "profiles/smoke.yaml"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], Capacity(2, {"LORI_THREADS": "3"})),
        (["execution.cpu_stages=1"], Capacity(1, {})),
        (["execution.cpu_stages=1", "execution.share_gpus=3"], Capacity(1, {})),
        (["execution.cpu_stages=12"], Capacity(12, {"LORI_THREADS": "1"})),
    ],
)
def test_points_share_the_cores_without_gpus(
    settings: list[str], expected: Capacity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sharing, "cores", lambda: 7)
    params, _ = params_file.changed(SMOKE, None, settings)
    assert capacity(params) == expected


def test_points_on_a_gpu_take_their_number_from_share_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    monkeypatch.setattr(sharing, "cores", lambda: 16)
    settings = ["execution.share_gpus=4", "execution.cpu_stages=2"]
    params, _ = params_file.changed(SMOKE, None, settings)
    assert capacity(params) == Capacity(4, {"CUDA_VISIBLE_DEVICES": "1", "LORI_THREADS": "4"})
