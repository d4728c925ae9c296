"""What a stage's process takes of a machine that it shares."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lori_core.core.processes import allotment


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What torch was told, on a pretend GPU of 80 GB; the environment says nothing yet."""
    found: dict[str, object] = {}
    for name in (allotment.MEMORY, allotment.THREADS, *allotment.OWN_THREADS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    card = SimpleNamespace(total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda share, device: found.update(share=share, device=device),
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda count: found.update(threads=count))
    return found


def test_nothing_is_bounded_where_nothing_is_said(taken: dict[str, object]) -> None:
    allotment.apply_limits()
    assert taken == {}


def test_memory_and_threads_are_bounded(
    taken: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(allotment.MEMORY, str(20 * 10**9))
    monkeypatch.setenv(allotment.THREADS, "3")
    allotment.apply_limits()
    assert taken == {"share": 0.25, "device": 0, "threads": 3}
    monkeypatch.setenv(allotment.MEMORY, str(90 * 10**9))
    allotment.apply_limits()
    assert taken["share"] == 1.0


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_users_own_number_of_threads_counts_more(
    name: str, taken: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(allotment.THREADS, "3")
    monkeypatch.setenv(name, "8")
    allotment.apply_limits()
    assert taken == {}
