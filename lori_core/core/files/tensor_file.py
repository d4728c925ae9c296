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
_LONGEST_HEADER = 16 << 20  # bytes; 100,000 tensors have about 10 MB
_MOST_DIMENSIONS = 64


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
        self._file = input_files.descriptor(path, AdapterError)
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size
        self.entries, self.metadata, self.data_start = self._header()

    def _header(self) -> tuple[dict[str, Entry], dict[str, str], int]:
        length = int.from_bytes(self._bytes(0, 8), "little")
        if _LONGEST_HEADER < length <= self.size - 8:
            raise AdapterError(
                f"{self.path}: its header has {length:,} bytes; at most {_LONGEST_HEADER:,} are "
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
            said = json_input.loads(text)
            json_input.check_text(text, said)
            if not isinstance(said, dict):
                raise ValueError("a JSON object is expected")
            metadata = _metadata(said.pop("__metadata__", {}))
            entries = {name: _entry(name, item, 8 + length) for name, item in said.items()}
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
        """Read one tensor into memory of its own."""
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
        """Return dtype and shape of a tensor; None where there is none that can be read here."""
        entry = self.entries.get(name)
        if entry is None or entry.dtype not in DTYPES:
            return None
        return Spec(DTYPES[entry.dtype], entry.shape)

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes that begin at `start`."""
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


def _metadata(said: Any) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise ValueError(f"__metadata__ is {shown(said)}, not texts by name")
    return said


def _entry(name: str, item: Any, data: int) -> Entry:
    """Return what the header says of a tensor.

    Raises:
        ValueError: it is not what a header says, or does not agree with itself.
    """
    if not isinstance(item, dict):
        raise ValueError(f"{shown(name)} is {shown(item)}, not an object")
    dtype, shape, offsets = (item.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str):
        raise ValueError(f"the dtype of {shown(name)} is {shown(dtype)}, not a name")
    if not _are_sizes(shape) or len(shape) > _MOST_DIMENSIONS:
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


def _are_sizes(said: Any) -> TypeGuard[list[int]]:
    return isinstance(said, list) and all(type(size) is int and size >= 0 for size in said)


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
