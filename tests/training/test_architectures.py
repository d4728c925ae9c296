"""Sixteen steps of every architecture: all paths of the engine against the plain one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lori_core.adapters import attach
from lori_core.adapters.adapter import uniform
from lori_core.config import TrainingSection
from lori_core.core.tracking import NullTracker
from lori_core.data.prompts import Encoded
from lori_core.models import peft_names
from lori_core.training import computing, trainer
from lori_core.training.kernels import flat_values, variable_length
from lori_core.training.kernels.reference_attention import ReferenceAttention

SIZES: dict[str, Any] = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 257, "eos_token_id": 258,
    "pad_token_id": 259,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 6},
    "phi3": {},
    "olmo2": {},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
TARGETS = {
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
}
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SECTION = TrainingSection(learning_rate=2e-3, batch_size=4, max_steps=16, save_steps=1000)


def examples() -> list[Encoded]:
    """Return rows of unlike lengths, with a common beginning."""
    random = torch.Generator().manual_seed(0)

    def ids(low: int, high: int) -> list[int]:
        count = int(torch.randint(low, high, (1,), generator=random))
        return torch.randint(0, 250, (count,), generator=random).tolist()

    start = ids(5, 6)
    return [Encoded(start + ids(1, 14), ids(1, 8), False) for _ in range(32)]


def adapted(kind: str, dtype: torch.dtype, device: str = "cpu", masked: bool = True) -> Any:
    """Return a tiny random model with trainable B, half of it inside a mask."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(SIZES | KINDS[kind]))
    base = AutoModelForCausalLM.from_config(config).to(device, dtype).requires_grad_(False)
    shapes = peft_names.target_shapes(base, TARGETS.get(kind, SEVEN))
    random = torch.Generator().manual_seed(1)
    A = {name: torch.randn(4, d_in, generator=random) for name, (d_in, _) in shapes.items()}
    positions = {
        name: (torch.rand(4 * d_out, generator=random) < 0.5).nonzero()[:, 0].to(device)
        for name, (_, d_out) in shapes.items()
    }
    model = attach.attach(base, uniform(shapes, 4, 8), lambda name: A[name])
    attach.make_trainable(model, positions if masked else None, None)
    return model


def trained(
    model: Any, folder: Path, section: TrainingSection = SECTION
) -> tuple[torch.Tensor, list[float]]:
    """Train; return all values, float32 on the CPU, and the loss of each step."""
    losses: list[float] = []

    class Losses(NullTracker):
        def metrics(self, values: Any, step: int | None = None) -> None:
            losses.append(values["loss"])

    trainer.train(
        model, examples(), section, pad_token_id=259, seed=3, checkpoints=folder, tracker=Losses(),
        what="test",
    )  # fmt: skip
    found = attach.trained_values(model).values()
    return torch.cat([v.detach().float().cpu().flatten() for v in found]), losses


@contextmanager
def plain_path() -> Iterator[None]:
    """Train on padded batches with PEFT's own layers and the model's own norms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computing, "_packing", lambda *_: (None, "as a comparison"))
        patch.setattr(computing.lora_linear, "installed", lambda _: nullcontext())
        patch.setattr(computing.pointwise, "installed", lambda _: nullcontext())
        yield


@contextmanager
def gpu_path() -> Iterator[None]:
    """Train as on a GPU, with the reference in place of FlashAttention."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variable_length, "kernel", ReferenceAttention())
        patch.setattr(flat_values, "suits", lambda _: True)
        patch.setattr(trainer, "reads_late", lambda _: True)
        yield


PATHS: dict[str, tuple[Callable[[], Any], TrainingSection]] = {
    "on a CPU": (nullcontext, SECTION),
    "as on a GPU": (gpu_path, SECTION.model_copy(update={"tokens_at_once": 30})),
}


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_steps_in_float32_are_those_of_the_plain_path(kind: str, tmp_path: Path) -> None:
    with plain_path():
        expected, losses = trained(adapted(kind, torch.float32), tmp_path / "plain")
    for name, (path, section) in PATHS.items():
        with path():
            values, found = trained(adapted(kind, torch.float32), tmp_path / name, section)
        assert found == pytest.approx(losses, rel=1e-5), name
        assert (values - expected).norm() < 1e-3 * expected.norm(), name
    with gpu_path():
        again, repeated = trained(adapted(kind, torch.float32), tmp_path / "again", section)
    assert torch.equal(again, values)
    assert repeated == found


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_steps_in_bfloat16_stay_near_the_plain_path(kind: str, tmp_path: Path) -> None:
    with plain_path():
        _, losses = trained(adapted(kind, torch.bfloat16), tmp_path / "plain")
    for name, (path, section) in PATHS.items():
        with path():
            _, found = trained(adapted(kind, torch.bfloat16), tmp_path / name, section)
        assert found == pytest.approx(losses, rel=2e-2), name
