import hashlib
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lori_core.adapters.masks import mask_file
from lori_core.adapters.masks.mask import Mask, top
from lori_core.core.errors import AdapterError, LoriError

SHAPES = {"layers.0.q_proj": (5, 3), "layers.0.é": (4, 3)}


def chosen() -> Mask:
    values = {
        name: torch.rand(shape, generator=torch.Generator().manual_seed(len(name)))
        for name, shape in SHAPES.items()
    }
    return top(values, Decimal("0.7"), "model")[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    mask = chosen()
    target = tmp_path / "mask.safetensors"
    facts = {"count": mask.count, "sparsity": "0.7", "threshold": 0.25, "calibration": "0" * 64}
    mask_file.save(mask, facts, target)
    return target


def save_version_1(path: Path, mask: Mask, **changed: str) -> None:
    metadata = {
        "format": "lori-mask/1",
        "shapes": json.dumps([[name, *shape] for name, shape in mask.shapes.items()]),
        "facts": json.dumps({"count": mask.count, "scope": "model"}),
    }
    save_file({"mask": torch.from_numpy(mask.bits)}, path, metadata | changed)


def test_a_mask_comes_back_with_its_facts(path: Path) -> None:
    mask, facts = mask_file.load(path)
    assert list(mask.shapes.items()) == list(SHAPES.items())
    assert mask.bits.tobytes() == chosen().bits.tobytes()
    assert facts == {"count": 9, "sparsity": "0.7", "threshold": 0.25, "calibration": "0" * 64}


def test_equal_masks_give_equal_files_that_any_reader_of_safetensors_opens(
    path: Path, tmp_path: Path
) -> None:
    mask, facts = mask_file.load(path)
    mask_file.save(mask, facts, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    with safe_open(path, framework="np") as file:
        assert file.get_tensor("mask").tobytes() == mask.bits.tobytes()
        said = file.metadata()["sha256"]
    blank = path.read_bytes().replace(said.encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == said


@pytest.mark.parametrize("change", ["one bit", "all bits", "any value"])
def test_a_change_of_any_byte_is_refused(path: Path, change: str) -> None:
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(len(content)):
        damaged = bytearray(content)
        flips = {
            "one bit": 1 << rng.integers(8),
            "all bits": 255,
            "any value": rng.integers(1, 256),
        }
        damaged[place] ^= int(flips[change])
        path.write_bytes(damaged)
        with pytest.raises(AdapterError) as refusal:
            mask_file.load(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert "\n" not in str(refusal.value)


def test_every_cut_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(AdapterError, match=r"cut off|damaged"):
            mask_file.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(AdapterError, match="damaged"):
        mask_file.load(path)


def test_an_edited_fact_is_refused(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.25", b"0.35"))
    with pytest.raises(AdapterError, match=r"damaged or edited \(its SHA-256 does not fit\)"):
        mask_file.load(path)
    path.write_bytes(content.replace(b"lori-mask/2", b"lori-mask/1"))
    with pytest.raises(AdapterError, match=r"damaged or edited \(its SHA-256 does not fit\)"):
        mask_file.load(path)


def test_version_1_is_read_for_ever(tmp_path: Path) -> None:
    mask = chosen()
    save_version_1(tmp_path / "old.safetensors", mask)
    again, facts = mask_file.load(tmp_path / "old.safetensors")
    assert list(again.shapes.items()) == list(SHAPES.items())
    assert again.bits.tobytes() == mask.bits.tobytes()
    assert facts == {"count": 9, "scope": "model"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"facts": '{"count": 8}'}, "9 entries kept, 8 expected"),
        ({"facts": "{}"}, "its metadata is not readable"),
        ({"facts": "["}, "its metadata is not readable"),
        ({"shapes": '[["a", 3]]'}, "its metadata is not readable"),
        ({"shapes": '[["a", 9, 9]]'}, "the mask is not of 11 bytes"),
        ({"format": "other/1"}, r"format 'other/1' is no mask's \(lori-mask/1, lori-mask/2\)"),
        ({"format": "lori-mask/2"}, "its metadata is not readable"),
    ],
)
def test_a_version_1_file_that_does_not_fit_is_refused(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    path = tmp_path / "old.safetensors"
    save_version_1(path, chosen(), **changed)
    with pytest.raises(AdapterError, match=message):
        mask_file.load(path)


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    with pytest.raises(AdapterError, match="no such mask"):
        mask_file.load(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(AdapterError, match="format None is no mask's"):
        mask_file.load(path)
    path.write_text("not one")
    with pytest.raises(AdapterError, match="not a safetensors file"):
        mask_file.load(path)


def test_a_threshold_that_is_no_number_is_neither_written_nor_read(
    path: Path, tmp_path: Path
) -> None:
    mask, facts = mask_file.load(path)
    with pytest.raises(LoriError, match="threshold is nan, which cannot be written"):
        mask_file.save(mask, facts | {"threshold": float("nan")}, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()
    save_version_1(path, mask, facts=json.dumps(facts | {"threshold": float("nan")}))
    with pytest.raises(AdapterError, match="damaged: its metadata is not readable"):
        mask_file.load(path)
