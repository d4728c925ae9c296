"""Safetensors files read and written one tensor at a time.

The library's own `load_file` maps a whole file and `save_file` wants all tensors at once. Here a
tensor is read when it is asked for and written when it is there, so that files of any size pass
through bounded memory.
"""

from __future__ import annotations

import json
import math
import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lori_core import finite
from lori_core.errors import AdapterError

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
_LONGEST_HEADER = 100_000_000  # the format's own limit, bytes


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: what it is, and where its bytes are.

    Attributes:
        dtype: the format's name of it, a key of `DTYPES` for those that can be read here.
        shape: its shape.
        start: its first byte, counted from the beginning of the file.
        stop: the byte after its last.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Spec:
    """What a tensor is, or will be."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class TensorFile(Mapping[str, Tensor]):
    """A safetensors file as a mapping that reads each tensor anew when it is asked for.

    The file stays open, so what was checked is what is read, even if another takes its name.

    Raises:
        AdapterError: for a file that is missing or whose header does not fit it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise AdapterError(f"{path}: cannot be read ({error.strerror})") from None
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size
        self.entries, self.metadata, self.data_start = self._header()

    def _header(self) -> tuple[dict[str, Entry], dict[str, str], int]:
        length = int.from_bytes(os.pread(self._file, 8, 0), "little")
        if self.size < 8 or length > min(self.size - 8, _LONGEST_HEADER):
            raise AdapterError(f"{self.path}: not a safetensors file, or cut off")
        try:
            said: dict[str, Any] = json.loads(os.pread(self._file, length, 8))
            metadata = said.pop("__metadata__", {})
            if not all(isinstance(value, str) for value in metadata.values()):
                raise TypeError("metadata are texts by name")
            entries = {name: _entry(item, 8 + length) for name, item in said.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AdapterError(f"{self.path}: damaged: its header is not readable") from None
        position = 8 + length
        for entry in sorted(entries.values(), key=lambda entry: entry.start):
            if entry.start != position or entry.stop < entry.start:
                raise AdapterError(f"{self.path}: damaged: its tensors do not lie side by side")
            position = entry.stop
        if position != self.size:
            raise AdapterError(
                f"{self.path}: damaged: {self.size} bytes, {position} expected (cut off?)"
            )
        return entries, metadata, 8 + length

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor into memory of its own."""
        entry = self.entries[name]
        if entry.dtype not in DTYPES:
            raise AdapterError(f"{self.path}: {name}: dtype {entry.dtype} cannot be used here")
        dtype = DTYPES[entry.dtype]
        if math.prod(entry.shape) * dtype.itemsize != entry.stop - entry.start:
            raise AdapterError(f"{self.path}: damaged: {name} has another size than its shape")
        tensor = torch.empty(entry.shape, dtype=dtype)
        self.read_into(entry.start, _bytes_of(tensor))
        return tensor

    def spec(self, name: str) -> Spec | None:
        """Return dtype and shape of a tensor; None where there is none that can be read here."""
        entry = self.entries.get(name)
        if entry is None or entry.dtype not in DTYPES:
            return None
        return Spec(DTYPES[entry.dtype], entry.shape)

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes that begin at `start`."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self._file, [buffer[done:]], start + done)
            if count == 0:
                raise AdapterError(f"{self.path}: cut off while it was being read")
            done += count

    def check_finite(self) -> None:
        """Read each tensor once, one in memory at a time, and refuse NaN and infinity.

        Raises:
            AdapterError: naming the file and the tensor.
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
    """Some tensors of a file under other names."""

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
    """Refuse a stored tensor that holds NaN or infinity.

    Raises:
        AdapterError: beginning with `where`.
    """
    found = finite.fault(tensor)
    if found is not None:
        raise AdapterError(
            f"{where} holds {found}: weights must be finite numbers; restore the file, or train "
            "it again"
        )


def _entry(item: Mapping[str, Any], data: int) -> Entry:
    start, stop = item["data_offsets"]
    shape = tuple(item["shape"])
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
        raise ValueError("sizes and places are whole numbers")
    return Entry(str(item["dtype"]), shape, data + start, data + stop)


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
    """Write a safetensors file, a tensor at a time.

    Args:
        path: the file, written directly: let the caller rename it into place.
        specs: dtype and shape by name, in the order of the file.
        tensors: as many, in the same order; each is let go before the next is asked for.
        metadata: free text by name.

    Raises:
        AdapterError: for a tensor that holds NaN or infinity.
        ValueError: if a tensor is not what its spec said.
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
            found = finite.fault(tensor)
            if found is not None:
                raise AdapterError(
                    f"{name} would hold {found} in {str(spec.dtype).removeprefix('torch.')}; use "
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
