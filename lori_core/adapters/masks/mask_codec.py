"""Entropy coding of a mask's bits: close to N·H(s) bits, the minimum for a random mask.

A coded mask is one byte that names the layout, followed by one zstd frame with a checksum:

* 0, bits: the packed bits unchanged. At sparsities of 0.5 to 0.9 Huffman codes over their bytes
  come close to the entropy, and decoding runs at memory speed.
* 1, gaps: for each kept entry the number of masked entries since the previous kept one, in 16
  bits: all low bytes, then all high bytes. At higher sparsity most bytes of the bits are zero, and
  one code word per byte is too much. 65,535 stands for that many masked entries and no kept one.
"""

from __future__ import annotations

import math

import numpy as np
import zstandard

from lori_core.core.errors import AdapterError

#: The name of the encoding in files.
NAME = "zstd-mask/1"

_BITS, _GAPS = 0, 1
#: Gaps are used if less than one entry in this many is kept; the sizes are equal near there.
_SPARSE = 12
_FAR = 65_535
_CHUNK = 1 << 20
# A random mask has no repetitions: zstd's match search is set as weak as possible, since chance
# matches cost more than Huffman codes of the bytes.
_PARAMETERS = {
    "compression_level": 1,
    "strategy": zstandard.STRATEGY_FAST,
    "window_log": 17,
    "hash_log": 6,
    "min_match": 7,
    "target_length": 0,
    "write_checksum": True,
    "threads": 0,
}


def entropy_bytes(total: int, kept: int) -> float:
    """Return N·H(kept/N)/8: the bytes that a random mask with this many entries needs on average.

    Args:
        total: the number of entries, N.
        kept: the number of entries that the mask keeps.
    """
    if kept in (0, total):
        return 0.0
    share = kept / total
    return -total * (share * math.log2(share) + (1 - share) * math.log2(1 - share)) / 8


def encode(bits: np.ndarray) -> np.ndarray:
    """Return the coded form of packed bits; equal bits give equal bytes.

    Args:
        bits: uint8, [⌈N/8⌉], the first entry in the highest bit, zeros after the last.

    Returns:
        uint8, [k].
    """
    kept = int(np.bitwise_count(bits).sum(dtype=np.int64))
    sparse = kept * _SPARSE < bits.size * 8
    planes = _gaps(bits) if sparse else [np.ascontiguousarray(bits)]
    coded = bytearray([_GAPS if sparse else _BITS])
    parameters = zstandard.ZstdCompressionParameters(**_PARAMETERS)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj(
        size=sum(plane.size for plane in planes)
    )
    for plane in planes:
        coded += writer.compress(plane.data)
        coded += writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)  # a Huffman code for each plane
    coded += writer.flush()
    return np.frombuffer(coded, dtype=np.uint8)


def decode(coded: np.ndarray, total: int) -> np.ndarray:
    """Return the packed bits of a coded mask; memory use is bounded by `total`.

    Args:
        coded: uint8, [k], as `encode` returns it.
        total: the number of entries, N.

    Returns:
        uint8, [⌈N/8⌉].

    Raises:
        AdapterError: the coded form is damaged, or of a mask of another size.
    """
    size = -(-total // 8)
    layout = int(coded[0]) if coded.size else -1
    if layout == _BITS:
        bits = _inflate(coded, size, size).copy()
    elif layout == _GAPS:
        # Two bytes for each kept entry, of which there are fewer than N/12, and for long gaps.
        bits = _marked(_inflate(coded, 0, 2 * size), total)
    else:
        raise AdapterError("mask: damaged: its coded form begins with no known layout")
    if total % 8 and bits[-1] & (0xFF >> total % 8):
        raise AdapterError(f"mask: damaged, or not of {total} entries: bits after the last are set")
    return bits


def _inflate(coded: np.ndarray, least: int, most: int) -> np.ndarray:
    """Decompress the frame, if its declared size in bytes is between `least` and `most`."""
    frame = coded[1:].tobytes()
    try:
        size = zstandard.frame_content_size(frame)
        if not least <= size <= most:  # the decompressor allocates the declared size
            raise AdapterError(f"mask: damaged, or of another size: {size} bytes, not {most}")
        plain = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise AdapterError(f"mask: damaged: {error}") from None
    if len(plain) != size:
        raise AdapterError(f"mask: damaged: {len(plain)} bytes, {size} expected")
    return np.frombuffer(plain, dtype=np.uint8)


def _gaps(bits: np.ndarray) -> list[np.ndarray]:
    """Return the low and the high bytes of the gaps before kept entries, uint8, [gaps] each."""
    filled = np.flatnonzero(bits)
    inside = np.flatnonzero(np.unpackbits(bits[filled]))
    positions = filled[inside >> 3] * 8 + (inside & 7)
    far, near = np.divmod(np.diff(positions, prepend=-1) - 1, _FAR)
    gaps = np.full(far.sum() + near.size, _FAR, dtype=np.uint16)
    gaps[np.cumsum(far + 1) - 1] = near
    return [(gaps & 0xFF).astype(np.uint8), (gaps >> 8).astype(np.uint8)]


def _marked(planes: np.ndarray, total: int) -> np.ndarray:
    """Return the packed bits, [⌈total/8⌉], of gaps given as low bytes, then high bytes."""
    low, high = planes[: planes.size // 2], planes[planes.size // 2 :]
    if low.size != high.size:
        raise AdapterError("mask: damaged: half a gap")
    steps = high.astype(np.int64) << 8 | low
    near = steps != _FAR
    steps += near
    positions = np.cumsum(steps, out=steps)
    positions -= 1
    if not near.all():
        positions = positions[near]
    if positions.size and positions[-1] >= total:
        raise AdapterError(
            f"mask: damaged, or not of {total} entries: one stands at {positions[-1]}"
        )
    bits = np.empty(-(-total // 8), dtype=np.uint8)
    starts = range(0, total, _CHUNK)
    cuts = np.searchsorted(positions, [*starts, total])
    for start, first, stop in zip(starts, cuts[:-1], cuts[1:], strict=True):
        chunk = np.zeros(min(_CHUNK, total - start), dtype=np.uint8)
        chunk[positions[first:stop] - start] = 1
        bits[start // 8 : -(-(start + chunk.size) // 8)] = np.packbits(chunk)
    return bits
