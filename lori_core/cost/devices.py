"""The devices of a forecast: GPUs by their data sheets, and this machine's CPU as measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lori_core.core.errors import InputError, unknown
from lori_core.models.precision import x86_has


@dataclass(frozen=True)
class Device:
    """A device that a stage runs on.

    Attributes:
        name: the name to show.
        flops: the peak of bfloat16 matrix products, operations per second.
        bandwidth: the memory bandwidth, bytes per second.
        memory: the size of the memory, bytes.
        kind: gpu or cpu.
        bfloat16: whether it has bfloat16 arithmetic; otherwise the work is done in float32.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    kind: str = "gpu"
    bfloat16: bool = True


#: Peaks without sparsity, from the vendor's data sheets.
DEVICES = {
    "h200": Device("NVIDIA H200", 989e12, 4.8e12, 141e9),
    "h100": Device("NVIDIA H100", 989e12, 3.35e12, 80e9),
    "a100-80gb": Device("NVIDIA A100 80 GB", 312e12, 2.04e12, 80e9),
    "a100-40gb": Device("NVIDIA A100 40 GB", 312e12, 1.56e12, 40e9),
    "l40s": Device("NVIDIA L40S", 362e12, 0.86e12, 48e9),
    "a10g": Device("NVIDIA A10G", 70e12, 0.6e12, 24e9),
    "rtx-4090": Device("NVIDIA RTX 4090", 165e12, 1.01e12, 24e9),
    "t4": Device("NVIDIA T4", 65e12, 0.32e12, 16e9, bfloat16=False),
}


def device(name: str) -> Device:
    """Return a device by name; `cpu` measures this machine.

    Raises:
        InputError: the name is unknown.
    """
    if name == "cpu":
        return measured_cpu()
    if name not in DEVICES:
        raise InputError(f"--gpu: {unknown('device', name, {*DEVICES, 'cpu'})}")
    return DEVICES[name]


def measured_cpu() -> Device:
    """Measure this machine's CPU with a matrix product and a copy, in about 0.1 seconds.

    The product is in bfloat16 if the CPU has instructions for it, otherwise in float32, as in
    training.
    """
    import time

    import psutil
    import torch

    half = x86_has("bfloat16", torch.cpu.get_capabilities())
    a = torch.randn(1024, 1024, dtype=torch.bfloat16 if half else torch.float32)
    block = torch.zeros(2**26, dtype=torch.uint8)

    def seconds(work: Any) -> float:
        work()
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    flops = 2 * 1024**3 / seconds(lambda: a @ a)
    bandwidth = 2 * len(block) / seconds(block.clone)
    memory = float(psutil.virtual_memory().total)
    cores = torch.get_num_threads()
    return Device(f"CPU ({cores} cores)", flops, bandwidth, memory, "cpu", half)
