"""Checkpoints of a training run: the trained parameters, and which checkpoint is complete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lori_core.core.errors import InputError
from lori_core.core.files.atomic import read_object

_VALUES_FILE = "values.safetensors"


def save_values(parameters: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Write parameters into a checkpoint's folder, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    # Copies: safetensors refuses tensors that share memory.
    values = {name: p.detach().clone().contiguous() for name, p in parameters.items()}
    save_file(values, folder / _VALUES_FILE)


def load_values(parameters: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Copy the values of a checkpoint into parameters of the same names."""
    saved = load_file(folder / _VALUES_FILE)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a folder; delete incomplete ones."""
    complete: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        # Trainer writes its state last: a checkpoint without it is incomplete.
        with suppress(InputError):
            step: Any = read_object(path / "trainer_state.json", 1 << 30).get("global_step")
            complete |= {step: path} if path.name == f"checkpoint-{step!r}" else {}
        if path not in complete.values():
            shutil.rmtree(path, ignore_errors=True)
    return complete[max(complete)] if complete else None
