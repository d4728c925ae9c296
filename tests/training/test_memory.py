import resource
from pathlib import Path

import pytest
import torch
from test_trainer import rows, run, trainable, values

from lori_core.adapters import attach
from lori_core.config import TrainingSection
from lori_core.data.prompts import Encoded
from lori_core.training import memory, trainer
from lori_core.training.memory import MemoryLackingError, fitting


def test_a_batch_that_does_not_fit_names_the_settings_to_change() -> None:
    with (
        pytest.raises(
            MemoryLackingError,
            match=r"^training step 7: a batch of 300 tokens does not fit into memory; lower "
            r"training.batch_size and raise training.gradient_accumulation_steps by as much .*, "
            r"or set training.gradient_checkpointing: true$",
        ),
        fitting(300, 7, memory.LOWER_BATCH),
    ):
        torch.empty(2**55)  # no machine has it


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_every_way_of_lacking_memory_says_so(error: Exception) -> None:
    said = "training step 2: a batch of 300 tokens"
    with pytest.raises(MemoryLackingError, match=said), fitting(300, 2, memory.LOWER_BATCH):
        raise error


def test_a_process_that_may_take_no_more_says_so(tmp_path: Path) -> None:
    model, _, _ = trainable()
    long = [Encoded([5] * 3000 + [n] * 1000, [7] * 3000, False) for n in range(8)]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26, hard))
    try:
        with pytest.raises(MemoryLackingError, match=r"training step 1: a batch of .* tokens does"):
            run(model, tmp_path, TrainingSection(batch_size=8, max_length=8000), long)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), fitting(300, 1, memory.LOWER_BATCH):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_training_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = trainable()
    monkeypatch.setattr(trainer, "sequence_loss", lambda *_: torch.empty(2**55).sum())
    with pytest.raises(MemoryLackingError, match="training step 1: a batch of"):
        run(model, tmp_path, TrainingSection(batch_size=4))


def test_the_state_is_sixteen_bytes_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = []
    original = trainer.LoriTrainer.create_optimizer

    def keep(self: trainer.LoriTrainer, model: object = None) -> torch.optim.Optimizer:
        engines.append(original(self, model))
        return engines[-1]

    monkeypatch.setattr(trainer.LoriTrainer, "create_optimizer", keep)
    model, _, _ = trainable()
    run(model, tmp_path, TrainingSection(batch_size=4))
    trained = attach.trained_values(model).values()
    count = sum(v.numel() for v in trained)
    # The gradients are float32 as the values are; each tensor also has a step count of 4 bytes.
    kept = sum(x.nbytes for state in engines[0].state.values() for x in state.values())
    assert 2 * sum(v.nbytes for v in trained) + kept - 4 * len(list(trained)) == 16 * count


@pytest.mark.parametrize("architecture", ["llama", "gpt2"], indirect=False)
def test_gradient_checkpointing_changes_no_value(tmp_path: Path, architecture: str) -> None:
    found = []
    for checkpointing in (False, True):
        model, _, _ = trainable(architecture)
        if architecture == "gpt2":  # its dropout would be drawn in another order
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        if checkpointing:
            model.enable_input_require_grads()
        section = TrainingSection(
            learning_rate=1e-2, batch_size=4, gradient_checkpointing=checkpointing
        )
        run(model, tmp_path / str(checkpointing), section)
        found.append(values(model))
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], atol=1e-5)


def test_rows_that_were_cut_are_counted_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = trainable()
    data = [type(row)(row.prompt, row.target, cut=number < 2) for number, row in enumerate(rows())]
    result = run(model, tmp_path, TrainingSection(batch_size=4, max_length=20), data)
    assert result.cut_examples == 2
    said = "test: 2 of 12 examples were cut to training.max_length (20 tokens)"
    assert said in capsys.readouterr().err.splitlines()


def test_memory_is_what_the_process_or_the_gpu_took() -> None:
    assert 0.05 < memory.memory_gb() < 100
