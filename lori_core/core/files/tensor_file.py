"""Read and write safetensors files one tensor at a time, in bounded memory.

The safetensors library's `load_file` memory-maps a whole file, and `save_file` needs all tensors at
once. Here each tensor is read on access, and written before the next one is computed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lori_core.core.errors import AdapterError, shown
from lori_core.core.files import finite
from lori_core.core.files.safetensors_file import SafetensorsFile

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: PyTorch's own names, as metadata and `adapter.json` hold them.
DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in _NAMES}


@dataclass(frozen=True)
class Spec:
    """A tensor's dtype and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class TensorFile(SafetensorsFile, Mapping[str, Tensor]):
    """A safetensors file as a mapping that reads a tensor on each access.

    Raises:
        AdapterError: as `SafetensorsFile`.
    """

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor into new memory.

        Raises:
            AdapterError: the dtype is not supported, or the file cannot be read.
        """
        entry = self.entries[name]
        if entry.dtype not in DTYPES:
            raise AdapterError(
                f"{self.path}: {name}: dtype {shown(entry.dtype)} cannot be used here (allowed: "
                f"{', '.join(DTYPES)}); save it as one of these"
            )
        dtype = DTYPES[entry.dtype]
        tensor = torch.empty(entry.shape, dtype=dtype)
        self.read_into(entry.start, _bytes_of(tensor))
        return tensor

    def spec(self, name: str) -> Spec | None:
        """Return a tensor's dtype and shape; None if it is missing or its dtype not supported."""
        entry = self.entries.get(name)
        if entry is None or entry.dtype not in DTYPES:
            return None
        return Spec(DTYPES[entry.dtype], entry.shape)

    def check_finite(self) -> None:
        """Read each tensor once, one in memory at a time, and refuse NaN and infinity.

        Raises:
            AdapterError: a tensor holds NaN or infinity.
        """
        for name in self:
            check_finite(self[name], f"{self.path}: {name}")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the tensors' names, in the header's order."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.entries)


class Renamed(Mapping[str, Tensor]):
    """A mapping of other names to tensors of a file."""

    def __init__(self, file: TensorFile, keys: Mapping[str, str]) -> None:
        self.file = file
        self.keys_in_file = keys

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor."""
        return self.file[self.keys_in_file[name]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.keys_in_file)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.keys_in_file)


def check_finite(tensor: Tensor, where: str) -> None:
    """Check that a stored tensor is finite.

    Raises:
        AdapterError: the tensor holds NaN or infinity; the message begins with `where`.
    """
    problem = finite.fault(tensor)
    if problem is not None:
        raise AdapterError(
            f"{where} holds {problem}: weights must be finite numbers; restore the file, or train "
            "it again"
        )


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor, writable, without a copy."""
    if not tensor.numel():
        return memoryview(bytearray())
    array: Any = tensor.view(torch.uint8).view(-1).numpy()
    return memoryview(array)


def write(
    path: Path,
    specs: Mapping[str, Spec],
    tensors: Iterable[Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file, one tensor in memory at a time.

    Args:
        path: the file, written directly; for an atomic write the caller renames it.
        specs: dtype and shape by name, in the order of the file.
        tensors: the tensors in the same order; each is released before the next is requested.
        metadata: the header's `__metadata__`.

    Raises:
        AdapterError: a tensor holds NaN or infinity.
        ValueError: a tensor's dtype or shape differs from its spec.
    """
    if sys.byteorder != "little":
        raise AdapterError("safetensors files hold little-endian numbers; this machine's are not")
    header = _render(specs, metadata)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for (name, spec), tensor in zip(specs.items(), tensors, strict=True):
            if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)}, not {spec}")
            problem = finite.fault(tensor)
            if problem is not None:
                raise AdapterError(
                    f"{name} would hold {problem} in {str(spec.dtype).removeprefix('torch.')}; use "
                    "smaller weights, or a wider precision"
                )
            file.write(_bytes_of(tensor.detach().cpu().contiguous()))


def _render(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, spec in specs.items():
        count = 1
        for size in spec.shape:
            count *= size
        stop = start + count * spec.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)  # the data begins at a multiple of eight
