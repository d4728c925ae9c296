"""Training on a CUDA device: parity with the CPU, repeatability, memory, half precision.

`pytest -m cuda` runs these; without a device they are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_architectures import KINDS, SECTION, adapted, trained

from lori_core.training import computing, trainer
from lori_core.training.kernels import flat_values, variable_length
from lori_core.training.token_budget import TokenBudget

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Train on the CPU of a machine with a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_steps_in_float32_are_those_of_the_cpu(
    kind: str, masked: bool, tmp_path: Path
) -> None:
    with on_the_cpu():
        model = adapted(kind, torch.float32, masked=masked)
        expected, losses = trained(model, tmp_path / "cpu")
    values, found = trained(adapted(kind, torch.float32, "cuda", masked), tmp_path / "cuda")
    assert found == pytest.approx(losses, rel=1e-4)
    assert (values - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_repeated_run_is_equal_bit_for_bit(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    runs = [trained(adapted(kind, dtype, "cuda"), tmp_path / name) for name in ("one", "two")]
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_stays_near_float32(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    _, expected = trained(adapted(kind, torch.float32, "cuda"), tmp_path / "float32")
    _, found = trained(adapted(kind, dtype, "cuda"), tmp_path / "half")
    assert found == pytest.approx(expected, rel=3e-2)


def test_half_precision_uses_variable_length_attention_and_one_tensor() -> None:
    model = adapted("llama", torch.bfloat16, "cuda")
    base = model.get_base_model()
    assert variable_length.unsupported_reason(base) is None
    collate, reason = computing._packing(model, base)
    assert (collate.keywords["padded"], reason) == (False, None)
    with flat_values.installed(model) as flat:
        assert flat is not None


def test_a_pass_that_does_not_fit_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = trained(adapted("llama", torch.bfloat16, "cuda"), tmp_path / "whole")
    budget = TokenBudget(10**6, adjustable=True)
    monkeypatch.setattr(computing, "token_budget", lambda *_: budget)
    original = trainer.sequence_loss

    def large(model: Any, inputs: Any) -> torch.Tensor:
        """Hold memory in proportion to the pass: more than there is for 30 tokens."""
        total = torch.cuda.get_device_properties(0).total_memory
        held = torch.empty(int(inputs["input_ids"].numel() / 30 * total), dtype=torch.uint8,
                           device="cuda")  # fmt: skip
        loss = original(model, inputs)
        del held
        return loss

    monkeypatch.setattr(trainer, "sequence_loss", large)
    model = adapted("llama", torch.bfloat16, "cuda")
    _, found = trained(model, tmp_path / "halved", SECTION)
    assert found == pytest.approx(expected, rel=2e-2)
    assert 0 < (budget.tokens or 0) < 10**6
