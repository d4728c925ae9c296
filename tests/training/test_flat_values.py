"""All trained values as one tensor: the numbers of one tensor for each layer, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import run, trainable, values

from lori_core.adapters import attach
from lori_core.config import TrainingSection
from lori_core.training.kernels import flat_values
from lori_core.training.trainer_overrides import TrainerOverrides

SECTION = TrainingSection(learning_rate=1e-2, batch_size=2, weight_decay=0.1, epochs=3)


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_values, "suits", lambda _: True)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_sixteen_steps_are_equal_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masked: bool, checkpointing: bool
) -> None:
    section = SECTION.model_copy(
        update={"gradient_checkpointing": checkpointing, "tokens_at_once": 40, "max_steps": 16}
    )
    found = []
    for suits in (False, True):
        monkeypatch.setattr(flat_values, "suits", lambda _, suits=suits: suits)
        model, _, _ = trainable(masked=masked, start=True)
        if checkpointing:
            model.enable_input_require_grads()
        run(model, tmp_path / str(suits), section)
        found.append(values(model))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.parametrize("tokens", ["auto", 40])
def test_a_penalty_is_trained_on_as_without_the_one_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: str | int
) -> None:
    """The penalty is a function of the layers' own parameters, so its gradient is theirs."""
    section = SECTION.model_copy(update={"tokens_at_once": tokens, "max_steps": 4})
    found = []
    for suits, strength in ((False, 3.0), (True, 3.0), (False, 0.0)):
        monkeypatch.setattr(flat_values, "suits", lambda _, suits=suits: suits)
        model, _, _ = trainable(start=True)
        anchors = [(p, p.detach().clone()) for p in attach.trained_values(model).values()]

        def penalty(anchors: Any = anchors, strength: float = strength) -> torch.Tensor:
            return strength * torch.stack([(p - a - 1).square().sum() for p, a in anchors]).sum()

        overrides = TrainerOverrides(penalty=penalty)
        run(model, tmp_path / f"{suits}{strength}", section, overrides=overrides)
        found.append(values(model))
    plain, flat, without = found
    for name, value in plain.items():
        assert torch.allclose(flat[name], value, rtol=1e-4, atol=1e-6), name
        assert not torch.allclose(without[name], value, rtol=1e-2), name


@pytest.mark.usefixtures("flat")
def test_a_run_resumes_without_the_one_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is the same with and without it, as where a run goes on on another device."""
    section = SECTION.model_copy(update={"save_steps": 4, "max_steps": 6})
    whole, _, _ = trainable()
    run(whole, tmp_path / "whole", section)
    first, _, _ = trainable()
    run(first, tmp_path / "cut", section.model_copy(update={"max_steps": 4}))
    monkeypatch.setattr(flat_values, "suits", lambda _: False)
    again, _, _ = trainable()
    assert run(again, tmp_path / "cut", section).steps == 6
    for name, value in values(whole).items():
        assert torch.equal(value, values(again)[name]), name


@pytest.mark.usefixtures("flat")
def test_a_pass_copies_and_gathers_once_for_all_layers() -> None:
    model, _, _ = trainable(start=True)
    calls: list[str] = []

    class Counter(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
            calls.append(str(function))
            return function(*args, **(kwargs or {}))

    with flat_values.installed(model) as one, Counter():
        assert one is not None
        one.begin_pass()
        sum(weight.sum() for weight in one.weights).backward()
    assert len(one.weights) == 14
    assert sum("index_copy" in call for call in calls) == 1
    assert sum("index_select" in call for call in calls) == 1
    one.end_step()
    trained = attach.trained_values(model).values()
    assert all(v.grad is not None and v.grad.shape == v.shape for v in trained)


@pytest.mark.usefixtures("flat")
def test_weights_are_those_of_each_layer_and_come_back_afterwards() -> None:
    model, _, _ = trainable(start=True)
    layers = list(attach.peft_names.lora_layers(model).values())
    before = [layer.lora_B["default"].weight.detach().clone() for layer in layers]
    with flat_values.installed(model) as one:
        assert one is not None
        one.begin_pass()
        inside = [layer.lora_B["default"].weight for layer in layers]
        assert all(torch.equal(a, b) for a, b in zip(before, inside, strict=True))
        with torch.no_grad():
            for values_of_one in attach.trained_values(model).values():
                values_of_one.add_(1.0)
        one.begin_pass()
        inside = [layer.lora_B["default"].weight.detach().clone() for layer in layers]
    after = [layer.lora_B["default"].weight for layer in layers]
    assert all(torch.equal(a, b) for a, b in zip(inside, after, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_model_that_trains_more_keeps_its_tensors() -> None:
    model, _, _ = trainable()
    assert flat_values.unsupported_reason(model) is None
    next(p for p in model.parameters() if not p.requires_grad).requires_grad_(True)
    said = "more or other parameters than B are trained"
    assert flat_values.unsupported_reason(model) == said
