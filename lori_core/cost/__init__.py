"""Forecasts of the cost of a stage: operations, bytes moved, memory, seconds."""

from lori_core.cost.bases import KNOWN, Base, base_of, outline
from lori_core.cost.devices import DEVICES, Device, device, measured_cpu
from lori_core.cost.examples import Split, Splits, count_splits
from lori_core.cost.footprint import WEIGHT_BYTES
from lori_core.cost.model import DISK, LOAD_SECONDS, Estimate, Model
from lori_core.cost.rates import Rate

__all__ = [
    "DEVICES",
    "DISK",
    "KNOWN",
    "LOAD_SECONDS",
    "WEIGHT_BYTES",
    "Base",
    "Device",
    "Estimate",
    "Model",
    "Rate",
    "Split",
    "Splits",
    "base_of",
    "count_splits",
    "device",
    "measured_cpu",
    "outline",
]
