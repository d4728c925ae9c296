"""Small real things the tests share: a tiny model of each architecture, an adapter on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core.adapters.adapter import Adapter, ProjectionBlock, uniform, values_in_mask
from lori_core.adapters.masks.mask import Mask, magnitude, top
from lori_core.config import ModelSection
from lori_core.models import base_model, peft_names
from lori_core.models.base_model import BaseIdentity

NAMES = ("math", "code", "nlu")
TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "mistral": ("q_proj", "v_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
}


def tiny(architecture: str) -> tuple[Any, Path, BaseIdentity]:
    """Return a two-layer model, its folder and its identity."""
    section = ModelSection(name_or_path=f"random:{architecture}", dtype="float32")
    folder = base_model.prepare(section)
    return base_model.load(section, folder), folder, base_model.identity(section, folder)


def random_B(shapes: dict[str, tuple[int, int]], seed: int) -> dict[str, torch.Tensor]:  # noqa: N802
    """Return normal values for each module's B."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def random_adapter(
    architecture: str = "llama",
    key: str = "math",
    rank: int = 4,
    alpha: float = 8,
    sparsity: str | None = "0.9",
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Adapter:
    """Return an adapter with random values inside a mask."""
    from decimal import Decimal

    model, _, base = tiny(architecture)
    modules = peft_names.target_shapes(model, TARGETS[architecture])
    B = random_B({name: (d_out, rank) for name, (_, d_out) in modules.items()}, seed)
    mask: Mask | None = None
    if sparsity is not None:
        mask, _ = top(magnitude(B), Decimal(sparsity), "model")
        positions = mask.positions()
        for name, b in B.items():
            kept = torch.zeros(b.numel(), dtype=torch.bool)
            kept[positions[name]] = True
            B[name] = b * kept.view(b.shape)
    block = ProjectionBlock(seed=42, key=key, rank=rank)
    info = {"task": key, "content_key": f"key-of-{key}"}
    turned = peft_names.fan_in_fan_out(model, modules)
    return Adapter(
        base=base,
        modules=uniform(modules, rank, alpha),
        blocks=(block,),
        mask=mask,
        values=values_in_mask(uniform(modules, rank, alpha), B, mask, dtype),
        dtype=dtype,
        info=info,
        fan_in_fan_out=turned,
    )


def three(ranks: tuple[int, int, int] = (4, 4, 4), sparsity: str | None = "0.9") -> list[Adapter]:
    return [
        random_adapter(key=name, rank=rank, alpha=2 * rank + i, seed=i, sparsity=sparsity)
        for i, (name, rank) in enumerate(zip(NAMES, ranks, strict=True), start=1)
    ]


def peft_folder(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Save a stock PEFT adapter with random values; return the model that wears it."""
    targets = {"target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", **(targets | options))
    model = get_peft_model(tiny("llama")[0], config)
    generator = torch.Generator().manual_seed(5)
    for layer in peft_names.lora_layers(model).values():
        for side in (layer.lora_A, layer.lora_B):
            weight = side[peft_names.ADAPTER].weight
            weight.data = torch.randn(weight.shape, generator=generator).to(dtype) / 10
    model.save_pretrained(folder)
    return model


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must be refused with exit code 2 and one line; return the line."""
    from lori_cli import main

    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    return lines[0]


def dvc_workspace(folder: Path) -> None:
    """Make a folder one in which DVC can work, without git."""
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")


def smoke_params(**experiments: Any) -> Any:
    """Return the smoke profile's parameters with changes to its experiments."""
    from lori_core import config
    from lori_core.pipeline import params_file

    path = Path(__file__).parent.parent / "profiles" / "smoke.yaml"
    values = params_file._plain(params_file._read(path))
    values["experiments"] |= experiments
    return config.parse(values, "params.yaml")
