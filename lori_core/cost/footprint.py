"""Forecast the memory that one process needs for training, from sizes alone.

What a pass needs is computed in `training.working_memory`. A base that is converted while it is
loaded also has its file in memory.
"""

from __future__ import annotations

import math

from lori_core.config import TrainingSection
from lori_core.cost.bases import Base
from lori_core.cost.devices import Device
from lori_core.methods.catalogue import METHODS
from lori_core.training import working_memory
from lori_core.training.working_memory import PROCESS, Layers

WEIGHT_BYTES = {"4bit": 0.56, "8bit": 1.03}
DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


def width(dtype: str, quantized: bool, on: Device) -> float:
    """Return the bytes of a number in the precision in which a device computes.

    Args:
        dtype: `model.dtype`.
        quantized: whether the base is quantised.
        on: the device.
    """
    half = dtype == "float16" or on.bfloat16
    return DTYPE_BYTES[dtype] if half or quantized else DTYPE_BYTES["float32"]


def weights(base: Base, quantization: str | None, number: float) -> float:
    """Return the bytes of a base model in memory.

    Args:
        base: its sizes.
        quantization: `model.quantization`.
        number: the bytes of a parameter that is not quantised.
    """
    return base.total * WEIGHT_BYTES.get(quantization or "", number)


def training(
    base: Base,
    section: TrainingSection,
    method: str,
    tokens: float,
    target: float,
    number: float,
    kind: str,
) -> float:
    """Return the bytes that training needs besides the weights and the trained state.

    Args:
        base: the sizes of the base model.
        section: gives batch size and gradient checkpointing.
        method: one of `lori_core.methods.catalogue.METHODS`.
        tokens: the tokens of the largest batch.
        target: the tokens of an example's target.
        number: the bytes of a number in the computing precision.
        kind: gpu or cpu.
    """
    layers = _layers(method, number, kind)
    return working_memory.working_bytes(base, section, layers, tokens, target)


def tokens_at_once(
    base: Base,
    section: TrainingSection,
    method: str,
    largest: float,
    longest: float,
    number: float,
    on: Device,
    room: float,
) -> float:
    """Return the tokens of the largest pass of a training run (`training.tokens_at_once`).

    Args:
        base: the sizes of the base model.
        section: the settings of the run.
        method: one of `lori_core.methods.catalogue.METHODS`.
        largest: the tokens of the largest batch, or of the largest step where batches are split.
        longest: the tokens of the longest example, which is never split.
        number: the bytes of a number in the computing precision.
        on: the device.
        room: the bytes of its memory besides the weights and the trained state.
    """
    if section.tokens_at_once != "auto":
        return min(largest, max(longest, section.tokens_at_once))
    if not splits(section, on):
        return largest
    most = max(1, math.ceil(largest))
    layers = _layers(method, number, on.kind)
    fitting = working_memory.tokens_that_fit(base, section, layers, room, most)
    return min(largest, max(longest, fitting))


def splits(section: TrainingSection, on: Device) -> bool:
    """Return whether passes are made from the examples of a whole optimizer step."""
    if section.tokens_at_once != "auto":
        return True
    return on.kind == "gpu" and section.sharding == "none"


def _layers(method: str, number: float, kind: str) -> Layers:
    known = METHODS[method]
    return Layers(known.lean, known.result == "weights", number, kind)


def loading(base: Base, number: float, kind: str) -> float:
    """Return the peak bytes while weights are loaded; the CPU may hold them in both precisions.

    Args:
        base: the sizes of the base model.
        number: the bytes of a parameter in memory.
        kind: gpu or cpu.
    """
    converted = kind == "cpu" and number != base.stored
    return PROCESS[kind] + base.total * (number + (base.stored if converted else 0.0))
