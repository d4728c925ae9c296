"""Read the header and ranges of bytes of a safetensors file, without importing PyTorch."""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from lori_core.core.errors import AdapterError, shown
from lori_core.core.files import input_files, json_input

#: Bytes per value of the dtypes that can be read, by safetensors' name.
ITEM_SIZES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
_MAX_HEADER = 16 << 20  # bytes; 100,000 tensors have about 10 MB
_MAX_DIMENSIONS = 64


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        dtype: the safetensors name of the dtype; a key of `ITEM_SIZES` if it is supported.
        shape: the tensor's shape.
        start: the offset of its first byte from the beginning of the file.
        stop: the offset after its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """The header of a safetensors file, and access to the file's bytes.

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
    if dtype in ITEM_SIZES and math.prod(shape) * ITEM_SIZES[dtype] != size:
        raise ValueError(
            f"{shown(name)} has {size} bytes, another size than its shape {shown(shape)} of {dtype}"
        )
    return Entry(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)
