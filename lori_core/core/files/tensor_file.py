"""Read and write safetensors files one tensor at a time, in bounded memory.

The safetensors library's `load_file` memory-maps a whole file, and `save_file` needs all tensors at
once. Here each tensor is read on access, and written before the next one is computed.
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
from typing import Any, TypeGuard

import torch
from torch import Tensor

from lori_core.core.errors import AdapterError, shown
from lori_core.core.files import finite, input_files, json_input

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
_MAX_HEADER = 16 << 20  # bytes; 100,000 tensors have about 10 MB
_MAX_DIMENSIONS = 64


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        dtype: the safetensors name of the dtype; a key of `DTYPES` if it is supported.
        shape: the tensor's shape.
        start: the offset of its first byte from the beginning of the file.
        stop: the offset after its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Spec:
    """A tensor's dtype and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class TensorFile(Mapping[str, Tensor]):
    """A safetensors file as a mapping that reads a tensor on each access.

    The file stays open, so the checked file is the one read, even if another replaces it.

    Attributes:
        path: the file.
        size: its size in bytes.
        entries: the tensors by name, in the header's order.
        metadata: the `__metadata__` of the header.
        data_start: the offset of the first tensor's bytes.

    Raises:
        AdapterError: the file is missing, or its header is damaged or does not fit its size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = input_files.descriptor(path, AdapterError)
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size
        self.entries, self.metadata, self.data_start = self._header()

    def _header(self) -> tuple[dict[str, Entry], dict[str, str], int]:
        length = int.from_bytes(self._bytes(0, 8), "little")
        if _MAX_HEADER < length <= self.size - 8:
            raise AdapterError(
                f"{self.path}: its header has {length:,} bytes; at most {_MAX_HEADER:,} are "
                "read here: split the tensors into several files"
            )
        if self.size < 8 or length > self.size - 8:
            raise AdapterError(
                f"{self.path}: not a safetensors file, or cut off ({self.size:,} bytes); take the "
                "file anew from where it came"
            )
        try:
            content = self._bytes(8, length)
            text = content.decode()
            header = json_input.loads(text)
            json_input.check_text(text, header)
            if not isinstance(header, dict):
                raise ValueError("a JSON object is expected")
            metadata = _metadata(header.pop("__metadata__", {}))
            entries = {name: _entry(name, item, 8 + length) for name, item in header.items()}
        except ValueError as error:
            raise AdapterError(
                f"{self.path}: damaged: its header is not readable ({error}); take the file anew "
                "from where it came"
            ) from None
        position = 8 + length
        for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
            if entry.start != position or entry.stop < entry.start:
                raise AdapterError(
                    f"{self.path}: damaged: its tensors do not lie side by side: {shown(name)} has "
                    f"the bytes {entry.start} to {entry.stop}, expected from {position}"
                )
            position = entry.stop
        if position != self.size:
            raise AdapterError(
                f"{self.path}: damaged: {self.size} bytes, {position} expected (cut off?)"
            )
        return entries, metadata, 8 + length

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

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer with the file's bytes from offset `start`.

        Raises:
            AdapterError: the file cannot be read, or ends too early.
        """
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._file, [buffer[done:]], start + done)
            except OSError as error:
                raise input_files.unreadable(self.path, error, AdapterError) from None
            if count == 0:
                raise AdapterError(f"{self.path}: cut off while it was being read")
            done += count

    def _bytes(self, start: int, count: int) -> bytes:
        buffer = bytearray(max(0, min(count, self.size - start)))
        self.read_into(start, memoryview(buffer))
        return bytes(buffer)

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


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"__metadata__ is {shown(value)}, not texts by name")
    return value


def _entry(name: str, item: Any, data: int) -> Entry:
    """Return a tensor's entry from the header's JSON.

    Raises:
        ValueError: a value has a wrong type, or shape and number of bytes do not agree.
    """
    if not isinstance(item, dict):
        raise ValueError(f"{shown(name)} is {shown(item)}, not an object")
    dtype, shape, offsets = (item.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str):
        raise ValueError(f"the dtype of {shown(name)} is {shown(dtype)}, not a name")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"the shape of {shown(name)} is {shown(shape)}, not a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"the data_offsets of {shown(name)} are {shown(offsets)}, not two numbers of bytes"
        )
    size = offsets[1] - offsets[0]
    if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != size:
        raise ValueError(
            f"{shown(name)} has {size} bytes, another size than its shape {shown(shape)} of {dtype}"
        )
    return Entry(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


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
