"""The loss of a step is read when the next has been launched, as on a GPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_token_budget import SECTION, losses
from test_trainer import run, trainable

from lori_core.config import TrainingSection
from lori_core.core.errors import DivergedError
from lori_core.core.tracking import NullTracker
from lori_core.training import trainer


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "reads_late", lambda _: True)


def broken_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """Let the loss of a step be nan; return the list of passes."""
    original, calls = trainer.sequence_loss, []

    def breaks(*args: Any) -> torch.Tensor:
        calls.append(1)
        return original(*args) * (float("nan") if len(calls) == step else 1)

    monkeypatch.setattr(trainer, "sequence_loss", breaks)
    return calls


def test_late_and_early_reading_report_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = SECTION.model_copy(update={"epochs": 4, "save_steps": 3})
    expected, values = losses(tmp_path / "early", "auto", section)
    monkeypatch.setattr(trainer, "reads_late", lambda _: True)
    found, others = losses(tmp_path / "late", "auto", section)
    assert found == expected
    assert all(torch.equal(value, others[name]) for name, value in values.items())


@pytest.mark.usefixtures("late")
def test_steps_are_reported_in_order_with_their_numbers(tmp_path: Path) -> None:
    class Steps(NullTracker):
        def __init__(self) -> None:
            self.steps: list[int | None] = []

        def metrics(self, values: Any, step: int | None = None) -> None:
            assert {"loss", "grad_norm", "learning_rate"} <= set(values)
            self.steps.append(step)

    model, _, _ = trainable()
    tracker = Steps()
    section = TrainingSection(batch_size=2, save_steps=4)
    result = run(model, tmp_path, section, tracker=tracker)
    assert tracker.steps == [1, 2, 3, 4, 5, 6]
    assert result.steps == 6


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(("step", "passes"), [(3, 4), (6, 6)])
def test_a_run_that_diverges_stops_one_step_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, passes: int
) -> None:
    calls = broken_at(monkeypatch, step)
    model, _, _ = trainable()
    with pytest.raises(DivergedError, match=rf"training step {step}: the loss is nan; lower"):
        run(model, tmp_path, TrainingSection(batch_size=2))
    assert len(calls) == passes


@pytest.mark.usefixtures("late")
def test_no_checkpoint_holds_a_step_that_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = broken_at(monkeypatch, 3)
    model, _, _ = trainable()
    with pytest.raises(DivergedError, match=r"training step 3: the loss is nan"):
        run(model, tmp_path, TrainingSection(batch_size=2, save_steps=1))
    assert len(calls) == 3
    found = trainer.last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-2"
