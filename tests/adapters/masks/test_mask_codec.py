import math

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lori_core.adapters.masks import mask_codec
from lori_core.core.errors import AdapterError


def drawn(total: int, sparsity: float, seed: int = 0) -> np.ndarray:
    return np.packbits(np.random.default_rng(seed).random(total) >= sparsity)


def entropy(bits: np.ndarray, total: int) -> float:
    return mask_codec.entropy_bytes(total, int(np.bitwise_count(bits).sum(dtype=np.int64)))


@given(st.integers(1, 400), st.sampled_from([0, 0.5, 0.9, 0.99, 1]), st.integers(0, 9))
def test_small_masks_come_back(total: int, sparsity: float, seed: int) -> None:
    bits = drawn(total, sparsity, seed)
    coded = mask_codec.encode(bits)
    assert coded.dtype == np.uint8
    again = mask_codec.decode(coded, total)
    assert again.dtype == np.uint8
    assert again.flags.writeable
    assert again.tobytes() == bits.tobytes()


def test_an_empty_mask_comes_back() -> None:
    empty = np.zeros(0, dtype=np.uint8)
    assert mask_codec.decode(mask_codec.encode(empty), 0).size == 0


@pytest.mark.parametrize(
    "gap", [65_533, 65_534, 65_535, 65_536, 131_069, 131_070, 131_071, 200_000]
)
def test_gaps_of_any_length_come_back(gap: int) -> None:
    flat = np.zeros(gap + 10, dtype=bool)
    flat[[3, gap + 4]] = True  # that many masked entries between the two
    bits = np.packbits(flat)
    assert mask_codec.decode(mask_codec.encode(bits), flat.size).tobytes() == bits.tobytes()


@pytest.mark.parametrize(
    ("sparsity", "most"),  # of the entropy
    [(0.5, 1.001), (0.8, 1.03), (0.9, 1.05), (0.95, 1.03), (0.99, 1.08), (0.999, 1.05)],
)
def test_a_coded_mask_is_near_its_entropy(sparsity: float, most: float) -> None:
    total = 2**23 + 3
    bits = drawn(total, sparsity)
    coded = mask_codec.encode(bits)
    assert coded.size <= most * entropy(bits, total)
    assert mask_codec.decode(coded, total).tobytes() == bits.tobytes()


@pytest.mark.parametrize("sparsity", [0, 1])
def test_a_mask_of_all_or_nothing_takes_no_room(sparsity: float) -> None:
    assert mask_codec.encode(drawn(2**23, sparsity)).size < 400


def test_nine_tenths_masked_take_less_than_half_a_bit_each() -> None:
    assert mask_codec.encode(drawn(2**23, 0.9)).size * 8 / 2**23 < 0.49


def test_equal_masks_give_equal_bytes() -> None:
    for sparsity in (0.9, 0.99):
        bits = drawn(2**20, sparsity)
        assert mask_codec.encode(bits).tobytes() == mask_codec.encode(bits.copy()).tobytes()


def test_entropy_is_that_of_the_kept_share() -> None:
    assert mask_codec.entropy_bytes(800, 400) == 100
    assert mask_codec.entropy_bytes(800, 0) == mask_codec.entropy_bytes(800, 800) == 0
    assert mask_codec.entropy_bytes(0, 0) == 0
    expected = 44_040_192 * (0.1 * math.log2(10) - 0.9 * math.log2(0.9)) / 8
    assert mask_codec.entropy_bytes(44_040_192, 4_404_020) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sparsity", [0.8, 0.95])
def test_no_flipped_bit_gives_another_mask(sparsity: float) -> None:
    total = 1003
    bits = drawn(total, sparsity)
    coded = mask_codec.encode(bits)
    refusals = []
    for place in range(coded.size * 8):
        damaged = coded.copy()
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert mask_codec.decode(damaged, total).tobytes() == bits.tobytes()
        except AdapterError as error:
            refusals.append(str(error))
    assert len(refusals) >= coded.size * 8 - 8, "all but a few of the header that mean nothing"
    assert all(text.startswith("mask: damaged") and "\n" not in text for text in refusals)


@pytest.mark.parametrize("sparsity", [0.8, 0.95])
def test_cut_or_lengthened_forms_are_refused(sparsity: float) -> None:
    coded = mask_codec.encode(drawn(1003, sparsity))
    for length in range(coded.size):
        with pytest.raises(AdapterError, match=r"^mask: damaged"):
            mask_codec.decode(coded[:length], 1003)
    with pytest.raises(AdapterError, match=r"^mask: damaged"):
        mask_codec.decode(np.append(coded, coded[:1]), 1003)


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\0", b"\1", b"\0(\xb5/\xfd", b"\1(\xb5/\xfd"])
)
def test_noise_is_refused(noise: bytes, begin: bytes) -> None:
    with pytest.raises(AdapterError, match=r"^mask: damaged"):
        mask_codec.decode(np.frombuffer(begin + noise, dtype=np.uint8), 1000)


@pytest.mark.parametrize("sparsity", [0.5, 0.99])
@pytest.mark.parametrize("total", [1, 500, 2001])
def test_a_mask_of_another_size_is_refused(sparsity: float, total: int) -> None:
    flat = np.random.default_rng(0).random(1003) >= sparsity
    flat[-1] = True
    with pytest.raises(AdapterError, match=r"^mask: damaged, or"):
        # Gaps say nothing of what comes after the last kept entry: a longer mask may be meant.
        mask_codec.decode(mask_codec.encode(np.packbits(flat)), total if sparsity < 0.9 else 1002)


@pytest.mark.parametrize("total", [1001, 1002, 1003])
def test_bits_after_the_last_entry_are_refused(total: int) -> None:
    for sparsity in (0.5, 0.99):
        bits = drawn(1003, sparsity)
        bits[-1] |= 1 << (7 - (total % 8))  # the first place after the last entry
        with pytest.raises(AdapterError, match=rf"^mask: damaged, or not of {total} entries"):
            mask_codec.decode(mask_codec.encode(bits), total)


@pytest.mark.parametrize("layout", [0, 1])
def test_a_form_that_would_fill_the_memory_is_refused_before_it_is_unpacked(layout: int) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(2**30 // 8))
    coded = np.frombuffer(bytes([layout]) + bomb, dtype=np.uint8)
    with pytest.raises(AdapterError, match="damaged, or of another size: 134217728 bytes"):
        mask_codec.decode(coded, 1000)
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(125))
    coded = np.frombuffer(bytes([layout]) + unsaid, dtype=np.uint8)
    with pytest.raises(AdapterError, match="damaged, or of another size"):
        mask_codec.decode(coded, 1000)


def test_half_a_gap_is_refused() -> None:
    coded = b"\1" + zstandard.ZstdCompressor().compress(bytes(3))
    with pytest.raises(AdapterError, match="half a gap"):
        mask_codec.decode(np.frombuffer(coded, dtype=np.uint8), 1000)


def test_coded_forms_of_the_first_version_are_read_for_ever() -> None:
    bits = np.packbits([1, 0, 0, 1, 0, 1, 1, 0, 1, 1])
    coded = bytes([0]) + zstandard.ZstdCompressor().compress(bits.tobytes())
    assert mask_codec.decode(np.frombuffer(coded, dtype=np.uint8), 10).tolist() == bits.tolist()
    gaps = np.array([5, 65_535, 300, 0], dtype="<u2")  # 5 masked, kept; 65,835 masked, kept; kept
    planes = (gaps & 255).astype(np.uint8).tobytes() + (gaps >> 8).astype(np.uint8).tobytes()
    coded = bytes([1]) + zstandard.ZstdCompressor().compress(planes)
    again = mask_codec.decode(np.frombuffer(coded, dtype=np.uint8), 70_001)
    assert np.flatnonzero(np.unpackbits(again)).tolist() == [5, 65_841, 65_842]
    assert mask_codec.NAME == "zstd-mask/1"
