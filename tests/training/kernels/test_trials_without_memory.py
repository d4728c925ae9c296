"""Memory that is full during a trial says nothing about a kernel: results must not depend on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_packed_attention import adapted
from torch import nn

from lori_core.training.kernels import liger, packed_attention, pointwise, variable_length
from lori_core.training.kernels.reference_attention import ReferenceAttention


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")


class _Full(ReferenceAttention):
    forward = full


def variable_length_trial(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(variable_length, "kernel", _Full())
    return variable_length.unsupported_reason(adapted("llama").get_base_model())


def packed_trial(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(packed_attention, "hidden_states", full)
    return packed_attention.unsupported_reason(adapted("llama").get_base_model())


def pointwise_trial(_: pytest.MonkeyPatch) -> Any:
    return pointwise._alike(nn.Identity(), full, 4, torch.zeros(1))


def liger_trial(_: pytest.MonkeyPatch) -> Any:
    return liger.agrees(full, torch.sin, torch.zeros(3, 8))


@pytest.mark.parametrize(
    "trial", [variable_length_trial, packed_trial, pointwise_trial, liger_trial]
)
def test_a_trial_that_lacks_memory_is_no_verdict(
    trial: Callable[[pytest.MonkeyPatch], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        trial(monkeypatch)
