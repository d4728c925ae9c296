"""The machine's load beside a stage's own rows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flows.execution import system_metrics
from flows.tracking import rows as rows_files
from flows.tracking.rows import read_from


def test_a_stage_that_reports_gets_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sampled = tmp_path / "rows.jsonl", threading.Event()
    real = system_metrics.sample

    def told() -> dict[str, float]:
        found = real()
        sampled.set()
        return found

    monkeypatch.setattr(system_metrics, "sample", told)
    rows_files.append(rows, "start", stage="x")
    with system_metrics.sampled(rows, interval=0.01):
        assert sampled.wait(10)
    found, _ = read_from(rows, 0)
    values = found[1]["values"]
    assert found[1]["step"] == 0
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert values["system/system_memory_usage_megabytes"] > 0


def test_a_stage_that_does_nothing_gets_no_rows(tmp_path: Path) -> None:
    with system_metrics.sampled(tmp_path / "rows.jsonl", interval=0.001):
        pass
    assert not (tmp_path / "rows.jsonl").exists()


def test_gpus_are_read_and_what_they_do_not_say_is_left_out() -> None:
    assert system_metrics.parse_gpus("0, 87, 20480, 301.5\n1, 3, 12, [N/A]\n") == {
        "system/gpu_0_utilization_percentage": 87.0,
        "system/gpu_0_memory_usage_megabytes": 20480.0,
        "system/gpu_0_power_usage_watts": 301.5,
        "system/gpu_1_utilization_percentage": 3.0,
        "system/gpu_1_memory_usage_megabytes": 12.0,
    }
