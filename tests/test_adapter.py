from pathlib import Path

import pytest
import torch

from lori_core import adapter as adapters
from lori_core import peft_names
from lori_core.errors import AdapterError
from support import random_adapter, tiny

IDS = torch.randint(0, 250, (2, 11), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sparsity", ["0.9", "0.999", "0", None])
def test_an_adapter_comes_back_from_disk_exactly(tmp_path: Path, sparsity: str | None) -> None:
    adapter = random_adapter(sparsity=sparsity)
    adapters.save(adapter, tmp_path / "adapter")
    again = adapters.load(tmp_path / "adapter")
    assert again.modules == adapter.modules
    assert (again.rank, again.lora_alpha, again.blocks) == (4, 8, adapter.blocks)
    assert again.info == adapter.info
    for name in adapter.modules:
        assert torch.equal(again.A[name], adapter.A[name])
        assert torch.equal(again.B[name], adapter.B[name])


def test_equal_adapters_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        adapters.save(random_adapter(), tmp_path / name)
    for file in (adapters.JSON_FILE, adapters.TENSOR_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_flipped_bit_a_cut_file_and_another_generator_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapters.save(random_adapter(), folder)
    file = folder / adapters.TENSOR_FILE
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (bytes(flipped), content[:-3]):
        file.write_bytes(damaged)
        with pytest.raises(AdapterError, match="damaged or missing"):
            adapters.load(folder)
    file.write_bytes(content)
    said = (folder / adapters.JSON_FILE).read_text()
    (folder / adapters.JSON_FILE).write_text(said.replace("philox-uniform/1", "philox-uniform/9"))
    with pytest.raises(AdapterError, match="drawn by 'philox-uniform/9'"):
        adapters.load(folder)
    (folder / adapters.JSON_FILE).write_text(said.replace('"key": "math"', '"key": "code"'))
    with pytest.raises(AdapterError, match="not the A it was trained with"):
        adapters.load(folder)
    with pytest.raises(AdapterError, match="no adapter here"):
        adapters.load(tmp_path)


def test_values_outside_the_mask_are_refused() -> None:
    adapter = random_adapter()
    assert adapter.mask is not None
    full = {name: torch.ones_like(b) for name, b in adapter.B.items()}
    with pytest.raises(AdapterError, match="outside its mask"):
        adapters.from_dense(
            adapter.base, adapter.modules, 8, adapter.blocks, full, adapter.mask, torch.float32, {}
        )


def test_another_base_is_refused() -> None:
    adapter = random_adapter("llama")
    _, _, other = tiny("mistral")
    with pytest.raises(AdapterError, match="whose config differ"):
        adapters.check_base(adapter, other, "here")
    adapters.check_base(adapter, adapter.base, "here")


@pytest.mark.parametrize("sparsity", ["0.9", None])
def test_an_exported_adapter_gives_stock_peft_the_same_logits(
    tmp_path: Path, architecture: str, sparsity: str | None
) -> None:
    from peft import PeftModel

    adapter = random_adapter(architecture, sparsity=sparsity)
    ours, _, _ = tiny(architecture)
    ours = adapters.attach(ours, adapter.modules, adapter.A, adapter.rank, adapter.lora_alpha)
    adapters.load_weights(ours, adapter)
    adapters.export_peft(adapter, tmp_path / "peft")
    stock, _, _ = tiny(architecture)
    plain = stock(IDS).logits
    stock = PeftModel.from_pretrained(stock, tmp_path / "peft")
    with torch.no_grad():
        expected = stock.eval()(IDS).logits
        assert torch.equal(ours.eval()(IDS).logits, expected)
    assert not torch.allclose(plain, expected, atol=1e-3)


def test_the_update_is_scaling_times_b_times_a(architecture: str) -> None:
    adapter = random_adapter(architecture)
    model, _, _ = tiny(architecture)
    wrapped = adapters.attach(model, adapter.modules, adapter.A, adapter.rank, adapter.lora_alpha)
    adapters.load_weights(wrapped, adapter)
    name, layer = next(iter(peft_names.lora_layers(wrapped).items()))
    delta = layer.get_delta_weight(peft_names.ADAPTER)
    expected = adapter.delta(name)
    if delta.shape != expected.shape:  # GPT-2's Conv1D keeps weights the other way round
        delta = delta.T
    assert torch.allclose(delta, expected, atol=1e-6)


def test_a_target_that_matches_nothing_is_named() -> None:
    model, _, _ = tiny("llama")
    with pytest.raises(Exception, match=r"'q_prj' matches no linear module.*did you mean 'q_proj'"):
        peft_names.target_shapes(model, ["q_prj"])
