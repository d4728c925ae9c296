"""What docs/format.md says, written anew from its text, with none of the code it is about."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

M0, M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
W0, W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
WORD = 2**64
FAR = 65_535
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "U8": "uint8"}


def philox(k0: int, k1: int) -> Iterator[int]:
    """Yield the 64-bit words of Philox4x64-10."""
    for counter in count(1):
        c0, c1, c2, c3, first, second = counter, 0, 0, 0, k0, k1
        for _ in range(10):
            (high1, low1), (high0, low0) = divmod(M1 * c2, WORD), divmod(M0 * c0, WORD)
            c0, c1, c2, c3 = high1 ^ c1 ^ first, low1, high0 ^ c3 ^ second, low0
            first, second = (first + W0) % WORD, (second + W1) % WORD
        yield from (c0, c1, c2, c3)


def float32(value: float) -> float:
    """Round to float32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def projection(seed: int, key: str, module: str, rank: int, d_in: int) -> list[float]:
    """Return A row by row."""
    text = f"lori-projection/1\n{seed}\n{key}\n{module}"
    k0, k1 = struct.unpack("<QQ", hashlib.sha256(text.encode()).digest()[:16])
    bound = float32(1 / math.sqrt(d_in))
    halves = (half for word in philox(k0, k1) for half in (word % 2**32, word >> 32))
    odd = (2 * (half >> 8) + 1 for half in islice(halves, rank * d_in))
    rounded = (j if j < 2**24 else (j + 1) // 4 * 4 for j in odd)
    # Two numbers of 24 bits: their product is exact in float64, and rounded once.
    return [float32((j - 2**24) / 2**24 * bound) for j in rounded]


def block_sha256(matrices: Sequence[tuple[str, int, int, list[float]]]) -> str:
    """Return the SHA-256 of a block: (module, rank, d_in, A row by row) for each module."""
    sha = hashlib.sha256()
    for module, rank, d_in, values in matrices:
        sha.update(f"{module}\n({rank}, {d_in})\n".encode())
        sha.update(struct.pack(f"<{len(values)}f", *values))
    return sha.hexdigest()


def tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a safetensors file's arrays in its order, and its metadata."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    found = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        raw = content[8 + length :][first:last]
        if entry["dtype"] == "BF16":  # the upper half of a float32
            array = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            array = np.frombuffer(raw, np.dtype(DTYPES[entry["dtype"]]).newbyteorder("<"))
        found[name] = array.reshape(entry["shape"])
    return found, metadata


def unpacked(packed: Any, total: int) -> list[bool]:
    """Return the bits of a mask, the first entry in the highest bit of the first byte."""
    bits = [bool(byte >> place & 1) for byte in packed.tolist() for place in range(7, -1, -1)]
    assert len(packed) == -(-total // 8)
    assert not any(bits[total:])
    return bits[:total]


def decoded(coded: Any, total: int) -> list[bool]:
    """Return the mask that is coded as `zstd-mask/1`."""
    layout, frame = int(coded[0]), coded[1:].tobytes()
    assert zstandard.get_frame_parameters(frame).has_checksum
    content = zstandard.ZstdDecompressor().decompress(frame)
    assert zstandard.frame_content_size(frame) == len(content)
    if layout == 0:
        return unpacked(np.frombuffer(content, np.uint8), total)
    assert layout == 1
    half = len(content) // 2
    kept, position = [False] * total, 0
    for low, high in zip(content[:half], content[half:], strict=True):
        gap = low + 256 * high
        position += gap
        if gap < FAR:
            kept[position] = True
            position += 1
    return kept


def dense(values: Any, kept: Sequence[bool] | None, total: int) -> list[float]:
    """Return all entries of B's, one after another."""
    if kept is None:
        assert len(values) == total
        return [float(value) for value in values]
    assert len(values) == sum(kept)
    rest = iter(values.tolist())
    return [float(next(rest)) if keep else 0.0 for keep in kept]


def adapter(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return A and B of each module, row by row, of an adapter of either version."""
    said = json.loads((folder / "adapter.json").read_text("utf-8"))
    path = folder / "adapter.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]
    found, metadata = tensors(path)
    assert metadata == {"format": said["format"]}
    first = said["format"] == "lori-adapter/1"
    modules = [
        (name, d_in, d_out, *((said["rank"],) if first else rest[:1]))
        for name, d_in, d_out, *rest in said["modules"]
    ]
    sizes = [d_out * rank for _, _, d_out, rank in modules]
    if first:
        kept = unpacked(found["mask"], sum(sizes)) if "mask" in found else None
        values = found["values"]
    else:
        check_json(folder / "adapter.json", said)
        coded = said["mask"]
        kept = None if coded is None else decoded(found["mask"], sum(sizes))
        assert coded is None or coded == {"coding": "zstd-mask/1", "count": sum(kept or ())}
        values = np.concatenate([found[f"B.{name}"] for name, *_ in modules])
        stored = not said["projection"]["blocks"]
        sides = "AB" if stored else "B"
        order = [f"{side}.{name}" for name, *_ in modules for side in sides]
        assert list(found) == order + ["mask"] * (coded is not None)
    entries, starts = dense(values, kept, sum(sizes)), np.cumsum([0, *sizes]).tolist()
    drawn = projections(said["projection"], modules, stacked=first)
    return {
        name: (
            drawn[name] if drawn else [float(value) for value in found[f"A.{name}"].reshape(-1)],
            entries[start:stop],
        )
        for (name, *_), start, stop in zip(modules, starts, starts[1:], strict=False)
    }


def check_json(path: Path, said: dict[str, Any]) -> None:
    """Check the bytes and the checksum of an `adapter.json`."""
    text = json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert path.read_bytes() == text.encode()
    rest = {key: value for key, value in said.items() if key != "checksum"}
    plain = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(plain.encode()).hexdigest() == said["checksum"]


def projections(
    said: dict[str, Any], modules: Sequence[tuple[str, int, int, int]], *, stacked: bool
) -> dict[str, list[float]]:
    """Return A of each module, its blocks stacked, once their SHA-256 fit; {} without blocks."""
    assert said["generator"] == "philox-uniform/1"
    drawn: dict[str, list[float]] = {name: [] for name, *_ in modules if said["blocks"]}
    for block in said["blocks"]:
        rank, matrices = block["rank"], []
        for name, d_in, *_ in modules:
            values = projection(block["seed"], block["key"], name, rank, d_in)
            matrices.append((name, rank, d_in, values))
            drawn[name] += values
        if not stacked:
            assert block["sha256"] == block_sha256(matrices)
    if stacked and drawn:
        whole = [(name, rank, d_in, drawn[name]) for name, d_in, _, rank in modules]
        assert said["sha256"] == block_sha256(whole)
    return drawn


def base_weights(folder: Path) -> str:
    """Return `base.weights` of a base model's folder."""
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.name):
        content = path.read_bytes()
        sha.update(f"{path.name}\n{len(content)}\n".encode())
        sha.update(content[8:][: int.from_bytes(content[:8], "little")])
        for i in range(64):
            start = max(0, len(content) - 4096) * i // 63
            sha.update(content[start : start + 4096])
    return sha.hexdigest()
