from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core.adapters import attach
from lori_core.config import TrainingSection
from lori_core.core.errors import DivergedError
from lori_core.core.tracking import FileTracker, NullTracker
from lori_core.data.batching import collate
from lori_core.data.prompts import Encoded
from lori_core.training import loss, trainer
from lori_core.training.trainer_overrides import TrainerOverrides
from support import random_adapter, tiny


def rows(count: int = 12, seed: int = 0) -> list[Encoded]:
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(0, 256, (length,), generator=generator).tolist()

    return [Encoded(ids(3, 9), ids(1, 6), cut=False) for _ in range(count)]


def trainable(
    architecture: str = "llama", masked: bool = True, start: bool = False
) -> tuple[Any, Any, Any]:
    """Return a model whose B is trainable inside a mask, and that mask's positions."""
    adapter = random_adapter(architecture)
    model, _, _ = tiny(architecture)
    model = attach.attach(model, adapter.modules, adapter.A)
    assert adapter.mask is not None
    positions = adapter.mask.positions() if masked else None
    B = {name: adapter.B(name) for name in adapter.modules} if start else None
    attach.make_trainable(model, positions, B)
    return model, positions, B


def run(model: Any, folder: Path, section: TrainingSection, data: Any = None, **kwargs: Any) -> Any:
    return trainer.train(
        model,
        rows() if data is None else data,
        section,
        pad_token_id=259,
        seed=1,
        checkpoints=folder,
        tracker=kwargs.get("tracker", NullTracker()),
        what="test",
        overrides=kwargs.get("overrides"),
    )


def values(model: Any) -> dict[str, torch.Tensor]:
    return {name: v.detach().clone() for name, v in attach.trained_values(model).items()}


def test_the_loss_is_the_sum_over_target_tokens_only(architecture: str) -> None:
    model, _, _ = trainable(architecture, start=True)
    data = rows(4)
    ours = loss.sequence_loss(model, collate(data, 259))
    expected = 0.0
    for row in data:
        ids = torch.tensor([row.prompt + row.target])
        log = model(ids).logits[0].detach().double().log_softmax(-1)
        for place in range(len(row.prompt), len(row)):
            expected -= float(log[place - 1, ids[0, place]])
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_chunks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients, losses = [], []
    for chunk in (1024, 3):
        monkeypatch.setattr(loss, "LOGIT_CHUNK", chunk)
        model, _, _ = trainable(start=True)
        total = loss.sequence_loss(model, collate(rows(5), 259))
        total.backward()
        losses.append(total.item())
        gradients.append([v.grad for v in attach.trained_values(model).values()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for first, second in zip(*gradients, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("clipping", ["per_tensor", "global", "none"])
@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
def test_one_step_is_that_of_a_plain_float64_reference(
    tmp_path: Path, clipping: str, reduction: str
) -> None:
    """paper, section 3.1, written out: loss, gradients inside the mask, clipping, AdamW."""
    section = TrainingSection(
        learning_rate=1e-2, batch_size=4, max_steps=1, clipping=clipping, loss=reduction,
        max_grad_norm=0.05, weight_decay=0.1,
    )  # fmt: skip
    data = rows(4)
    model, _, _ = trainable(start=True)
    before = values(model)
    reference, _, _ = trainable(start=True)
    reference = reference.double()
    for layer in attach.trained_values(reference):  # compute in float64 throughout
        module = reference.get_submodule(f"base_model.model.{layer}")
        module.lora_B["default"].parametrizations["weight"][0].dtype = torch.float64
    total = loss.sequence_loss(reference, collate(data, 259))
    count = 4 if reduction == "sequence_sum" else sum(len(row.target) for row in data)
    (total / count).backward()
    gradients = {n: v.grad.double() for n, v in attach.trained_values(reference).items()}
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    run(model, tmp_path, section, data)
    for name, after in values(model).items():
        g = gradients[name]
        if clipping == "per_tensor":
            g = g * min(1.0, 0.05 / float(g.norm()))
        elif clipping == "global":
            g = g * min(1.0, 0.05 / float(norm))
        w = before[name].double() * (1 - 1e-2 * 0.1)
        expected = w - 1e-2 * g / (g.abs() + 1e-8)
        # Where the gradient is as small as AdamW's ε, float32 and float64 may differ in sign.
        clear = g.abs() > 1e-6
        assert torch.allclose(after.double()[clear], expected[clear], atol=2e-5)


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
def test_accumulation_is_one_big_batch(tmp_path: Path, reduction: str) -> None:
    results = []
    data = sorted(rows(8), key=len)
    for size, steps in ((8, 1), (2, 4)):
        section = TrainingSection(
            learning_rate=1e-2, batch_size=size, gradient_accumulation_steps=steps, loss=reduction
        )
        model, _, _ = trainable()
        run(model, tmp_path / str(size), section, data)
        results.append(values(model))
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], atol=2e-4)


@pytest.mark.parametrize("tokens", ["auto", 40])
def test_each_step_has_one_penalty_also_where_it_has_fewer_batches(
    tmp_path: Path, tokens: str | int
) -> None:
    """Of three batches, the second step has one."""
    shares: list[float] = []
    steps: list[float] = []

    def penalty() -> torch.Tensor:
        value = torch.zeros((), requires_grad=True)
        value.register_hook(lambda share: shares.append(float(share)))
        return value

    def after_step(_: int) -> None:
        steps.append(sum(shares))
        shares.clear()

    section = TrainingSection(batch_size=4, gradient_accumulation_steps=2, tokens_at_once=tokens)
    overrides = TrainerOverrides(penalty=penalty, after_step=after_step)
    run(trainable()[0], tmp_path, section, overrides=overrides)
    assert steps == pytest.approx([1, 1])


def test_only_packed_values_are_trained(tmp_path: Path) -> None:
    model, positions, start = trainable(start=True)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    run(model, tmp_path, TrainingSection(learning_rate=0.1, batch_size=4, epochs=2))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, frozen[name])
    after = attach.trained_B(model, positions, start)
    for name, b in after.items():
        inside = torch.zeros(b.numel(), dtype=torch.bool)
        inside[positions[name]] = True
        assert torch.equal(b.reshape(-1)[~inside], start[name].reshape(-1)[~inside])
        moved = b.reshape(-1)[inside] != start[name].reshape(-1)[inside]
        assert bool(moved.all()) or not bool(inside.any())


def test_training_lowers_the_loss_and_repeats_exactly(tmp_path: Path, architecture: str) -> None:
    section = TrainingSection(learning_rate=3e-2, batch_size=4, epochs=6)
    results = []
    for name in ("one", "two"):
        model, _, _ = trainable(architecture, masked=False)
        result = run(model, tmp_path / name, section)
        assert result.last_loss < 0.9 * result.first_loss
        assert (result.steps, result.examples) == (18, 12)
        results.append(values(model))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name])


class _KilledError(Exception):
    pass


def test_an_interrupted_run_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = TrainingSection(learning_rate=1e-2, batch_size=4, epochs=3, save_steps=2, dropout=0.1)
    whole, _, _ = trainable()
    run(whole, tmp_path / "whole", section)
    cut, _, _ = trainable()
    original = trainer.LoriTrainer.training_step

    def dies(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 5:
            raise _KilledError
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.LoriTrainer, "training_step", dies)
        with pytest.raises(_KilledError):
            run(cut, tmp_path / "cut", section)
    # A checkpoint that was being written when the process died is left out.
    broken = tmp_path / "cut" / "checkpoint-5"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global')
    found = trainer.last_checkpoint(tmp_path / "cut")
    assert found is not None
    assert found.name == "checkpoint-4"
    again, _, _ = trainable()
    result = run(again, tmp_path / "cut", section)
    assert result.steps == 9
    for name, value in values(whole).items():
        assert torch.equal(value, values(again)[name])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, _ = trainable()
    original = trainer.sequence_loss
    calls = []

    def breaks(*args: Any) -> Any:
        calls.append(1)
        return original(*args) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(trainer, "sequence_loss", breaks)
    section = TrainingSection(batch_size=2, save_steps=1)
    with pytest.raises(DivergedError, match=r"training step 3: the loss is nan; lower"):
        run(model, tmp_path, section)
    found = trainer.last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-2"


def test_each_step_is_reported(tmp_path: Path) -> None:
    import json

    model, _, _ = trainable()
    tracker = FileTracker(tmp_path / "rows.jsonl")
    run(model, tmp_path / "c", TrainingSection(batch_size=4), tracker=tracker)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    names = {"loss", "grad_norm", "learning_rate", "tokens_per_second", "memory_gb"}
    assert set(lines[0]["values"]) == names


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_before_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    model, _, _ = trainable()
    original = trainer.clip_gradients
    calls = []

    def breaks(parameters: Any, section: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            parameters[0].grad[0] = value
        return original(parameters, section)

    monkeypatch.setattr(trainer, "clip_gradients", breaks)
    section = TrainingSection(batch_size=2, save_steps=1)
    with pytest.raises(DivergedError, match=r"training step 3: the gradient's norm is (nan|inf);"):
        run(model, tmp_path, section)
    found = trainer.last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-2"


@pytest.mark.parametrize("limits", [{"epochs": 3}, {"epochs": 3, "max_steps": 4}])
def test_a_run_that_was_stopped_after_its_last_checkpoint_trains_no_step_more(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    section = TrainingSection(learning_rate=1e-2, batch_size=4, save_steps=1, **limits)
    whole, _, _ = trainable()
    first = run(whole, tmp_path, section)
    again, _, _ = trainable()
    assert run(again, tmp_path, section) == first
    for name, value in values(whole).items():
        assert torch.equal(value, values(again)[name])
