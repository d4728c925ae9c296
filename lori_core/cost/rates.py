"""The shares of a device's peak that stages reach: measured ones with their source, and guesses.

`MEASURED` is the only place for measured training speeds. A forecast takes, from the measurements
of the device with the same kind of layers, the one whose rows and passes are nearest in tokens. For
a GPU that has not been measured it takes those of the measured one: a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lori_core.cost.devices import DEVICES, Device


@dataclass(frozen=True)
class Measured:
    """One measured training run.

    Attributes:
        device: the name of the device, or `cpu`.
        lean: whether the linear layers keep no activations (`training.kernels.lora_linear`), or
            are PEFT's.
        row: the mean tokens of a row.
        at_once: the tokens of a forward and backward pass.
        speed: tokens per second.
        operations: floating point operations per token by the cost model's formula.
        peak: the peak that `lori plan` divides by, operations per second: of the data sheet for a
            GPU, measured for a CPU.
        source: what was measured, where and when.
    """

    device: str
    lean: bool
    row: float
    at_once: float
    speed: float
    operations: float
    peak: float
    source: str

    @property
    def share(self) -> float:
        """The share of the peak."""
        return self.speed * self.operations / self.peak


@dataclass(frozen=True)
class Rate:
    """A share of a device's peak that a forecast uses.

    Attributes:
        work: what it is used for.
        share: the share of the peak of matrix products, or of the memory bandwidth.
        measured: whether it was measured on this device; otherwise it is a guess.
        source: the measurement, or what the guess is based on.
    """

    work: str
    share: float
    measured: bool
    source: str


_H200, _PEAK = DEVICES["h200"].name, DEVICES["h200"].flops
#: Operations per token: Llama-3-8B and SmolLM2-135M at rank 32, half the tokens supervised.
_8B, _135M = 29.5e9, 0.544e9
_CARD = "Llama-3-8B's shapes at rank 32 in bfloat16 on one NVIDIA H200, torch 2.11, 2026-11-27"
_BEFORE = f"{_CARD}, before training.tokens_at_once and attention of variable length"
_CPU = "SmolLM2-135M at rank 32 in bfloat16 on two AVX512-BF16 cores"
#: Published in docs/performance.md.
MEASURED = (
    Measured(_H200, True, 239, 1_915, 4_551, _8B, _PEAK, f"LoRI-D, 8 rows of GSM8K; {_BEFORE}"),
    Measured(_H200, True, 224, 7_182, 6_839, _8B, _PEAK, f"LoRI-D, 32 rows of GSM8K; {_BEFORE}"),
    Measured(_H200, True, 2_048, 8_192, 12_636, _8B, _PEAK, f"LoRI-S, 4 rows of 2,048; {_BEFORE}"),
    Measured(_H200, False, 239, 1_915, 6_608, _8B, _PEAK, f"PEFT, 8 rows of GSM8K; {_CARD}"),
    Measured(_H200, False, 2_048, 8_192, 11_961, _8B, _PEAK, f"PEFT, 4 rows of 2,048; {_CARD}"),
    Measured("cpu", True, 239, 1_915, 515, _135M, 406e9, f"LoRI-D, 8 rows of GSM8K; {_CPU}"),
    Measured("cpu", False, 239, 1_915, 197, _135M, 406e9, f"PEFT, 8 rows of GSM8K; {_CPU}"),
)
#: The shares of the peak and of the memory bandwidth in scoring and generation, never measured.
INFERENCE = {"gpu": 0.35, "cpu": 0.55}
BANDWIDTH = 0.5


def training_rate(on: Device, lean: bool, row: float, at_once: float) -> Rate:
    """Return the rate of training.

    Args:
        on: the device.
        lean: see `Measured`.
        row: the mean tokens of a row.
        at_once: the tokens of a pass.
    """
    own = on.name if on.kind == "gpu" else "cpu"
    alike = [m for m in MEASURED if m.lean == lean and (m.device == "cpu") == (on.kind == "cpu")]
    known = [m for m in alike if m.device == own]

    def apart(one: Measured) -> float:
        return abs(math.log(one.row / row)) + abs(math.log(one.at_once / at_once))

    nearest = min(known or alike, key=apart)
    work = "training" if lean else "training with PEFT's layers"
    return Rate(work, nearest.share, bool(known), nearest.source)


def inference(on: Device) -> tuple[Rate, Rate]:
    """Return the rates of scoring and generation: of the peak, and of the memory bandwidth."""
    source = "not measured on any device"
    return (
        Rate("scoring and generation", INFERENCE[on.kind], False, source),
        Rate("reading memory in generation", BANDWIDTH, False, source),
    )
