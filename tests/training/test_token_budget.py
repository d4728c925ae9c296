"""`training.tokens_at_once`: any budget computes the same gradients, losses and steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import rows, run, trainable, values

from lori_core.config import TrainingSection
from lori_core.core.tracking import NullTracker
from lori_core.data import passes
from lori_core.data.batching import collate
from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded
from lori_core.training import computing, trainer
from lori_core.training.memory import MemoryLackingError
from lori_core.training.token_budget import TokenBudget, token_budget
from lori_core.training.working_memory import Layers, tokens_that_fit, working_bytes

SECTION = TrainingSection(learning_rate=1e-2, batch_size=4, gradient_accumulation_steps=2)


class Losses(NullTracker):
    """Keep the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def metrics(self, values: Any, step: int | None = None) -> None:
        self.values.append(values["loss"])


def losses(
    folder: Path, budget: Any, section: TrainingSection = SECTION
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train a tiny model within a budget; return the loss of each step, and the values."""
    model, _, _ = trainable(start=True)
    tracker = Losses()
    run(model, folder, section.model_copy(update={"tokens_at_once": budget}), tracker=tracker)
    return tracker.values, values(model)


@pytest.mark.parametrize("loss", ["sequence_sum", "token_mean"])
def test_any_token_budget_gives_the_same_losses(tmp_path: Path, loss: str) -> None:
    section = SECTION.model_copy(update={"loss": loss, "epochs": 4})
    expected, _ = losses(tmp_path / "auto", "auto", section)
    assert len(expected) == 8  # 12 rows in steps of 8: two steps an epoch
    for budget in (1, 9, 30, 10_000):
        found, _ = losses(tmp_path / str(budget), budget, section)
        assert found == pytest.approx(expected, rel=1e-6), budget


def test_runs_with_one_budget_are_equal_bit_for_bit(tmp_path: Path) -> None:
    first, one = losses(tmp_path / "one", 20)
    second, two = losses(tmp_path / "two", 20)
    assert first == second
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_run_resumes_with_another_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = SECTION.model_copy(update={"epochs": 4, "save_steps": 3})
    expected, whole = losses(tmp_path / "whole", "auto", section)
    original = trainer.LoriTrainer.training_step

    def dies(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.LoriTrainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            losses(tmp_path / "cut", "auto", section)
    found, again = losses(tmp_path / "cut", 12, section)
    assert found == pytest.approx(expected[3:], rel=1e-6)
    for name, value in whole.items():
        assert torch.allclose(value, again[name], atol=1e-5)


def limited(monkeypatch: pytest.MonkeyPatch, most: int, budget: TokenBudget) -> list[int]:
    """Let passes of more than `most` tokens fail for lack of memory; return the sizes of passes."""
    original, sizes = trainer.sequence_loss, []

    def computed(model: Any, inputs: Any) -> torch.Tensor:
        sizes.append(passes.size(inputs))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(model, inputs)

    monkeypatch.setattr(trainer, "sequence_loss", computed)
    monkeypatch.setattr(computing, "token_budget", lambda *_: budget)
    return sizes


def test_a_pass_that_does_not_fit_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = losses(tmp_path / "auto", "auto")
    budget = TokenBudget(10_000, adjustable=True)
    sizes = limited(monkeypatch, 30, budget)
    found, _ = losses(tmp_path / "halved", "auto")
    assert found == pytest.approx(expected, rel=1e-6)
    assert 0 < (budget.tokens or 0) <= sizes[0] // 2
    assert max(sizes[-4:]) <= 30


def test_an_example_that_does_not_fit_names_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 5, TokenBudget(10_000, adjustable=True))
    said = r"lower training.max_length, or set training.gradient_checkpointing: true$"
    with pytest.raises(MemoryLackingError, match=said):
        losses(tmp_path, "auto")


def test_a_budget_that_was_set_is_not_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 20, TokenBudget(40))
    with pytest.raises(MemoryLackingError, match=r"lower training.tokens_at_once \(the result"):
        losses(tmp_path, 40)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("tokens", [None, 1, 7, 20, 60, 1000])
def test_every_example_is_in_exactly_one_pass(tokens: int | None, packed: bool) -> None:
    data = [Encoded(row.prompt, [*row.target, 1000 + n], False) for n, row in enumerate(rows(9))]
    collated: list[Any] = []

    def keeps(part: Any) -> dict[str, Any]:
        inputs = pack_batch(part) if packed else collate(part, 0)
        collated.append((part, inputs))
        return inputs

    parts = passes.split(data, tokens, keeps, packed=packed)
    owners = [next(p for p, i in collated if i is part) for part in parts]
    assert sorted(row.target[-1] for part in owners for row in part) == list(range(1000, 1009))
    limit = max(tokens or 10**6, *(len(row) for row in data))
    assert all(passes.size(part) <= limit for part in parts)
    assert len(parts) == 1 or tokens is not None


def test_examples_with_a_common_prompt_are_in_one_pass() -> None:
    prompts = [[n] * 20 for n in (1, 2, 3)]
    data = [Encoded(prompts[n % 3], [4 + n], False) for n in range(9)]
    parts = passes.split(data, 23, pack_batch, packed=True)
    assert [passes.size(part) for part in parts] == [23, 23, 23]


def test_auto_computes_each_batch_at_once_on_a_cpu() -> None:
    model, _, _ = trainable()
    assert token_budget(model, SECTION, torch.device("cpu")) == TokenBudget(None)
    section = SECTION.model_copy(update={"tokens_at_once": 512})
    assert token_budget(model, section, torch.device("cpu")) == TokenBudget(512)


def test_auto_fills_a_gpu_as_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: shapes and the size of the memory decide."""
    model, _, _ = trainable()

    def budget(gigabytes: float) -> int:
        card = type("Card", (), {"total_memory": int(gigabytes * 1e9)})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
        found = token_budget(model, SECTION, torch.device("cuda"))
        assert found.adjustable
        return found.tokens or 0

    small, large = budget(0.05), budget(0.5)
    assert 1 < small < large
    sharded = SECTION.model_copy(update={"sharding": "full"})
    assert token_budget(model, sharded, torch.device("cuda")) == TokenBudget(None)


def test_the_largest_pass_that_fits_is_the_forecast() -> None:
    from test_cost import model as costs

    base = costs("llama3-8b-r32").base
    layers = Layers(lean=True, whole=False, number=2.0, kind="gpu")
    found = tokens_that_fit(base, SECTION, layers, 40e9, 10**6)
    assert working_bytes(base, SECTION, layers, found, 1e4) <= 40e9
    assert working_bytes(base, SECTION, layers, found + 1, 1e4) > 40e9
    lean = replace(layers, lean=False)
    assert tokens_that_fit(base, SECTION, lean, 40e9, 10**6) < found
