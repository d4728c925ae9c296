from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lori_core.core.errors import AdapterError
from lori_core.core.files import tensor_file
from lori_core.core.files.tensor_file import Spec, TensorFile

TENSORS = {
    "floats": torch.arange(12.0).view(3, 4),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "none": torch.zeros(0, 7),
    "halves": torch.tensor([[1.5, -2.0]]).bfloat16(),
}


def write(path: Path) -> None:
    specs = {name: Spec(t.dtype, tuple(t.shape)) for name, t in TENSORS.items()}
    tensor_file.write(path, specs, TENSORS.values(), {"format": "pt"})


def test_what_is_written_is_read_by_the_library_and_here(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors")
    theirs, ours = load_file(tmp_path / "x.safetensors"), TensorFile(tmp_path / "x.safetensors")
    assert list(ours) == list(TENSORS)
    assert ours.metadata == {"format": "pt"}
    for name, tensor in TENSORS.items():
        assert torch.equal(theirs[name], tensor)
        assert torch.equal(ours[name], tensor)
        assert ours.spec(name) == Spec(tensor.dtype, tuple(tensor.shape))
    assert ours.spec("other") is None


def test_files_of_the_library_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    for name, tensor in TensorFile(tmp_path / "x.safetensors").items():
        assert torch.equal(tensor, TENSORS[name])


def test_an_open_file_outlives_its_name(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").unlink()
    assert torch.equal(file["floats"], TENSORS["floats"])


@pytest.mark.parametrize("cut", [0, 5, 8, 60, -1])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.safetensors"
    write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(AdapterError, match=r"cut off|damaged"):
        TensorFile(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"[3,4]", b"[3,9]"), (b'"F32"', b'"F99"'), (b"[0,48]", b"[0,49]"), (b'{"__', b'["__')],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "x.safetensors"
    write(path)
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(AdapterError, match=r"damaged|dtype 'F99'"):
        TensorFile(path)["floats"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"x\.safetensors: no such file"):
        TensorFile(tmp_path / "x.safetensors")


def test_a_tensor_that_is_not_what_was_announced_is_refused(tmp_path: Path) -> None:
    specs = {"a": Spec(torch.float32, (3,))}
    with pytest.raises(ValueError, match="a: "):
        tensor_file.write(tmp_path / "x", specs, [torch.zeros(2)], {})
