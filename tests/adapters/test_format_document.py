"""docs/format.md against the code: files that were written here are read as the document says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import documented
import numpy as np
import pytest
import torch

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.masks import mask_codec, mask_file
from lori_core.adapters.masks.mask import magnitude, top
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError
from lori_core.merging.merge import merge
from support import random_adapter, random_B, three, tiny

GOLDEN = Path(__file__).parents[1] / "golden"


def rows(matrix: torch.Tensor) -> list[float]:
    return [float(value) for value in matrix.reshape(-1).tolist()]


def check(folder: Path) -> None:
    """Compare what the document says of a folder with what is read of it."""
    adapter, found = adapter_file.load(folder), documented.adapter(folder)
    assert list(found) == list(adapter.modules)
    for name, (a, b) in found.items():
        assert a == rows(adapter.A(name))
        assert b == rows(adapter.B(name))


@pytest.mark.parametrize(
    "make",
    [
        lambda: random_adapter(sparsity="0.9"),
        lambda: random_adapter(sparsity="0.95", dtype=torch.bfloat16),
        lambda: random_adapter(sparsity=None, dtype=torch.float16, key="tâche 1"),
        lambda: merge("concat", three(), [0.5, 0.25, 1.0]),
        lambda: merge("linear", three(), [0.5, 0.25, 1.0]),
    ],
    ids=["bits", "gaps", "all of B", "several blocks", "A stored"],
)
def test_an_adapter_is_what_the_document_says(tmp_path: Path, make: Callable[[], Adapter]) -> None:
    adapter_file.save(make(), tmp_path / "adapter")
    check(tmp_path / "adapter")


@pytest.mark.parametrize("name", ["keyed", "concat", "stored"])
def test_an_adapter_of_version_1_is_what_the_document_says(name: str) -> None:
    check(GOLDEN / f"adapter-v1-{name}")


@pytest.mark.parametrize("total", [7, 8, 9, 13, 96, 97, 200_000])
def test_a_mask_is_coded_as_the_document_says(total: int) -> None:
    for kept in {0, 1, 2, total // 12, total // 2, total} & set(range(total + 1)):
        flat = np.zeros(total, dtype=bool)
        flat[np.random.default_rng(kept).permutation(total)[:kept]] = True
        coded = mask_codec.encode(np.packbits(flat))
        assert documented.decoded(coded, total) == flat.tolist()
        rounded_up = -(-total // 8) * 8
        assert coded[0] == (1 if kept * 12 < rounded_up else 0)


def test_a_mask_file_is_what_the_document_says(tmp_path: Path) -> None:
    shapes = {"layers.0.q_proj": (5, 3), "layers.0.é": (4, 3)}
    mask = top(magnitude(random_B(shapes, 1)), Decimal("0.7"), "model")[0]
    facts = {"count": mask.count, "sparsity": "0.7"}
    path = tmp_path / "mask.safetensors"
    mask_file.save(mask, facts, path)
    found, metadata = documented.tensors(path)
    assert list(found) == ["mask"]
    assert documented.unpacked(found["mask"], 27) == mask.flat.tolist()
    assert set(metadata) == {"format", "sha256", "shapes", "facts"}
    assert metadata["format"] == "lori-mask/2"
    said = [tuple(shape) for shape in json.loads(metadata["shapes"])]
    assert said == [(name, *shape) for name, shape in shapes.items()]
    assert json.loads(metadata["facts"]) == facts
    blank = path.read_bytes().replace(metadata["sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == metadata["sha256"]


def test_other_bytes_of_the_same_meaning_are_refused_but_for_line_ends(tmp_path: Path) -> None:
    adapter_file.save(random_adapter(), tmp_path)
    path = tmp_path / "adapter.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\n", b"\r\n"))
    adapter_file.load(tmp_path)
    for other in (content + b"\n", content.replace(b"  ", b" "), json.dumps(json.loads(content))):
        path.write_bytes(other if isinstance(other, bytes) else other.encode())
        with pytest.raises(AdapterError, match="damaged or edited"):
            adapter_file.load(tmp_path)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_base_is_named_as_the_document_says(architecture: str) -> None:
    _, folder, base = tiny(architecture)
    assert base.weights == documented.base_weights(folder)
    assert base.config == hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()


def back(adapter: Adapter, folder: Path) -> tuple[dict[str, object], bool, Adapter]:
    """Export and import; return what differs in `adapter.json`, and whether the tensors do."""
    adapter_file.save(adapter, folder / "one")
    peft_file.export_peft(adapter_file.load(folder / "one"), folder / "peft")
    again = peft_file.import_peft(folder / "peft")
    adapter_file.save(again, folder / "two")
    one, two = (json.loads((folder / n / "adapter.json").read_text()) for n in ("one", "two"))
    files = [(folder / name / "adapter.safetensors").read_bytes() for name in ("one", "two")]
    differing = {key: two[key] for key in one if one[key] != two[key] and key != "checksum"}
    return differing, files[0] != files[1], again


def test_a_peft_folder_comes_back_as_the_document_says(tmp_path: Path) -> None:
    for name, adapter in (
        ("sparse", random_adapter(dtype=torch.bfloat16)),
        ("all of B", random_adapter(sparsity=None)),
        ("stored", merge("linear", three(), [0.5, 0.5, 0.5])),
    ):
        differing, tensors, _ = back(adapter, tmp_path / name)
        assert set(differing) <= {"matched_by"}
        assert not tensors


def test_what_the_mask_of_a_peft_folder_cannot_say_is_documented(tmp_path: Path) -> None:
    half = random_adapter(sparsity="0.3")
    _, tensors, again = back(half, tmp_path / "half")
    assert tensors
    assert again.mask is None
    sparse = random_adapter()
    name = next(iter(sparse.modules))
    first = sparse.values[name].clone()
    first[0] = 0
    zero = replace(sparse, values={**sparse.values, name: first})
    _, tensors, again = back(zero, tmp_path / "zero")
    assert tensors
    assert again.count == zero.count - 1
    assert all(torch.equal(again.B(n), zero.B(n)) for n in zero.modules)
