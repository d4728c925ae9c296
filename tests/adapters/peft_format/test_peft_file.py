import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lori_core.adapters import adapter_file, attach
from lori_core.adapters.adapter import Adapter, LayerSpec
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError
from lori_core.models import peft_names
from support import peft_folder, random_adapter, tiny

IDS = torch.randint(0, 250, (2, 11), generator=torch.Generator().manual_seed(3))


def logits_of_stock(architecture: str, folder: Path) -> torch.Tensor:
    stock = PeftModel.from_pretrained(tiny(architecture)[0], folder)
    with torch.no_grad():
        logits: torch.Tensor = stock.eval()(IDS).logits
    return logits


def logits_of(architecture: str, adapter: Adapter) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = (
            attach.apply_adapter(tiny(architecture)[0], adapter).eval()(IDS).logits
        )
    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sparsity", ["0.9", None])
def test_an_exported_adapter_gives_stock_peft_the_same_logits(
    tmp_path: Path, architecture: str, sparsity: str | None, dtype: torch.dtype
) -> None:
    adapter = random_adapter(architecture, sparsity=sparsity, dtype=dtype)
    peft_file.export_peft(adapter, tmp_path / "peft")
    exported = logits_of_stock(architecture, tmp_path / "peft")
    assert torch.equal(exported, logits_of(architecture, adapter))
    with torch.no_grad():
        plain = tiny(architecture)[0](IDS).logits
    assert not torch.allclose(plain, exported, atol=1e-3)


def test_a_process_without_this_package_loads_an_export(tmp_path: Path) -> None:
    adapter = random_adapter()
    peft_file.export_peft(adapter, tmp_path / "peft")
    _, base, _ = tiny("llama")
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M; "
        "from peft import PeftModel; "
        f"m = PeftModel.from_pretrained(M.from_pretrained({str(base)!r}), 'peft').eval(); "
        f"torch.save(m(torch.tensor({IDS.tolist()})).logits.detach(), 'logits.pt'); "
        "assert not [n for n in sys.modules if n.startswith('lori')]"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert torch.equal(logits, logits_of("llama", adapter))


@pytest.mark.parametrize("sparsity", ["0.9", None])
def test_export_import_export_gives_the_same_bytes_and_the_keys_back(
    tmp_path: Path, architecture: str, sparsity: str | None
) -> None:
    adapter = random_adapter(architecture, sparsity=sparsity, dtype=torch.bfloat16)
    adapter = adapter_file.save(adapter, tmp_path / "ours")
    peft_file.export_peft(adapter, tmp_path / "one")
    again = peft_file.import_peft(tmp_path / "one")
    assert again.blocks == adapter.blocks
    assert (again.base, again.info, again.dtype) == (adapter.base, adapter.info, adapter.dtype)
    peft_file.export_peft(again, tmp_path / "two")
    for name in (peft_names.CONFIG_FILE, peft_names.WEIGHTS_FILE):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two
    adapter_file.save(again, tmp_path / "ours-again")
    name = adapter_file.TENSOR_FILE
    one, two = ((tmp_path / folder / name).read_bytes() for folder in ("ours", "ours-again"))
    assert one == two


def test_an_export_that_somebody_changed_is_taken_as_it_is(tmp_path: Path) -> None:
    adapter = adapter_file.save(random_adapter(dtype=torch.bfloat16), tmp_path / "ours")
    peft_file.export_peft(adapter, tmp_path / "peft")
    file = tmp_path / "peft" / peft_names.WEIGHTS_FILE
    (name, *_) = adapter.modules
    tensors = load_file(file)
    metadata = {"format": "pt", "lori": peft_file.canonical_json(peft_file._origin(adapter))}
    tensors[peft_names.weight_key(name, "A")][0, 0] += 1
    save_file(tensors, file, metadata=metadata)
    changed = peft_file.import_peft(tmp_path / "peft")
    assert changed.blocks == ()
    assert changed.A(name)[0, 0] == adapter.A(name)[0, 0] + 1
    peft_file.export_peft(adapter, tmp_path / "peft")
    tensors = load_file(file)
    tensors[peft_names.weight_key(name, "B")][0, 0] = 1 + 2**-20
    save_file(tensors, file, metadata=metadata)
    changed = peft_file.import_peft(tmp_path / "peft")
    assert changed.blocks == adapter.blocks
    assert changed.B(name)[0, 0] == 1 + 2**-20


CONFIGS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8},
    {"r": 8, "lora_alpha": 3, "use_rslora": True},
    {"r": 4, "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7}, "lora_alpha": 5},
    {"r": 4, "alpha_pattern": {"down_proj": 1, "layers.0.self_attn.v_proj": 32}},
    {"r": 4, "layers_to_transform": [1], "layers_pattern": "layers"},
    {"r": 4, "target_modules": r".*\.1\..*(q_proj|up_proj)"},
    {"r": 4, "exclude_modules": ["v_proj"]},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_any_lora_of_peft_can_be_used(tmp_path: Path, options: dict[str, Any]) -> None:
    model = peft_folder(tmp_path / "theirs", **options)
    adapter = peft_file.import_peft(tmp_path / "theirs")
    layers = peft_names.lora_layers(model)
    assert set(adapter.modules) == set(layers)
    for name, layer in layers.items():
        assert adapter.scaling(name) == layer.scaling[peft_names.ADAPTER]
        delta = layer.get_delta_weight(peft_names.ADAPTER)
        assert torch.allclose(adapter.delta(name), delta, atol=1e-6)
    with torch.no_grad():
        expected = model.eval()(IDS).logits
    assert torch.equal(logits_of("llama", adapter), expected)
    peft_file.export_peft(adapter, tmp_path / "back")
    assert torch.equal(logits_of_stock("llama", tmp_path / "back"), expected)
    adapter_file.save(adapter, tmp_path / "ours")
    kept = adapter_file.load(tmp_path / "ours")
    assert torch.equal(logits_of("llama", kept), expected)


def test_a_folder_in_half_precision_stays_so(tmp_path: Path) -> None:
    peft_folder(tmp_path / "theirs", dtype=torch.bfloat16, r=4)
    adapter = peft_file.import_peft(tmp_path / "theirs")
    assert adapter.dtype == torch.bfloat16
    peft_file.export_peft(adapter, tmp_path / "back")
    theirs, back = (load_file(tmp_path / f / peft_names.WEIGHTS_FILE) for f in ("theirs", "back"))
    assert theirs.keys() == back.keys()
    for key, tensor in theirs.items():
        assert back[key].dtype == torch.bfloat16
        assert torch.equal(back[key], tensor)


def test_a_dense_lora_has_no_mask_and_a_sparse_one_has(tmp_path: Path) -> None:
    peft_folder(tmp_path / "dense", r=4)
    assert peft_file.import_peft(tmp_path / "dense").mask is None
    sparse = random_adapter()
    peft_file.export_peft(sparse, tmp_path / "sparse")
    mask = peft_file.import_peft(tmp_path / "sparse").mask
    assert mask is not None
    assert sparse.mask is not None
    assert mask.bits.tobytes() == sparse.mask.bits.tobytes()


def config_of(folder: Path, **changes: Any) -> None:
    path = folder / peft_names.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _drop_b(folder: Path) -> None:
    file = folder / peft_names.WEIGHTS_FILE
    tensors = load_file(file)
    tensors.pop(next(key for key in tensors if "lora_B" in key))
    save_file(tensors, file)


def _add(key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / peft_names.WEIGHTS_FILE
        save_file(load_file(file) | {key: torch.zeros(2)}, file)

    return change


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (lambda f: config_of(f, peft_type="IA3"), "peft_type is 'IA3'; only LORA"),
    (lambda f: config_of(f, use_dora=True), "use_dora is set"),
    (lambda f: config_of(f, bias="all"), "bias is 'all'"),
    (lambda f: config_of(f, lora_bias=True), "lora_bias is set"),
    (
        lambda f: config_of(f, modules_to_save=["lm_head"]),
        r"modules_to_save is set \(\['lm_head'\]",
    ),
    (lambda f: config_of(f, init_lora_weights="pissa_niter_4"), "it changed the base's weights"),
    (lambda f: config_of(f, trainable_token_indices=[3]), "trainable_token_indices is set"),
    (lambda f: config_of(f, target_parameters=["experts.w"]), "target_parameters is set"),
    (lambda f: config_of(f, layer_replication=[[0, 1]]), "layer_replication is set"),
    (lambda f: config_of(f, something_of_tomorrow={"x": 1}), "something_of_tomorrow is set"),
    (lambda f: config_of(f, r=16), r"lora_A is \(4, 128\).*but the configured rank is 16"),
    (lambda f: config_of(f, lora_alpha=10**400), "lora_alpha is .* not a finite number"),
    (lambda f: config_of(f, r=10**400), "but the configured rank is 1000"),
    (lambda f: config_of(f, alpha_pattern={"q_proj": 10**400}), "alpha_pattern is .* not numbers"),
    (lambda f: config_of(f, lora_alpha=1e308), r"module model\.\S+: lora_alpha 1e\+308 at rank 4"),
    (lambda f: config_of(f, alpha_pattern={"q_proj": 1e308}), "q_proj: lora_alpha 1e.308 at rank"),
    (
        lambda f: config_of(f, alpha_pattern={"q_proj(": 2}),
        r"adapter_config\.json: alpha_pattern: 'q_proj\(' is no regular expression",
    ),
    (lambda f: config_of(f, rank_pattern={"[": 4}), r"rank_pattern: '\[' is no regular expression"),
    (_add("base_model.model.lm_head.weight"), "holds base_model.model.lm_head.weight, which is no"),
    (_add("base_model.model.x.lora_magnitude_vector"), "a DoRA magnitude"),
    (_drop_b, "has only one of lora_A and lora_B"),
    (lambda f: (f / peft_names.CONFIG_FILE).unlink(), "no adapter here"),
    (lambda f: (f / peft_names.WEIGHTS_FILE).unlink(), "adapter_model.safetensors is missing"),
    (
        lambda f: (f / peft_names.WEIGHTS_FILE).rename(f / "adapter_model.bin") and None,
        "is a pickle, which can run code",
    ),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS, ids=[m for _, m in FAULTS])
def test_what_is_no_plain_lora_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    peft_folder(tmp_path / "theirs", r=4)
    damage(tmp_path / "theirs")
    with pytest.raises(AdapterError, match=message):
        peft_file.open_adapter(tmp_path / "theirs")


def test_vllm_gets_one_rank_and_alpha_that_it_can_serve(tmp_path: Path) -> None:
    adapter = random_adapter(rank=12, alpha=7)
    peft_file.export_peft(adapter, tmp_path / "served", serving="vllm")
    config = json.loads((tmp_path / "served" / peft_names.CONFIG_FILE).read_text())
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (16, {}, {})
    served = peft_file.import_peft(tmp_path / "served")
    for name in adapter.modules:
        assert served.A(name).shape[0] == 16
        assert torch.allclose(served.delta(name), adapter.delta(name), atol=1e-6)
    expected = logits_of("llama", adapter)
    assert torch.allclose(logits_of_stock("llama", tmp_path / "served"), expected, atol=1e-5)


def test_vllm_gets_differing_scalings_inside_b(tmp_path: Path) -> None:
    peft_folder(tmp_path / "theirs", r=4, rank_pattern={"q_proj": 9}, alpha_pattern={"v_proj": 3})
    adapter = peft_file.import_peft(tmp_path / "theirs")
    peft_file.export_peft(adapter, tmp_path / "served", serving="vllm")
    config = json.loads((tmp_path / "served" / peft_names.CONFIG_FILE).read_text())
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (16, {}, {})
    served = peft_file.import_peft(tmp_path / "served")
    for name in adapter.modules:
        assert torch.allclose(served.delta(name), adapter.delta(name), atol=1e-6)


def test_vllm_cannot_serve_every_rank(tmp_path: Path) -> None:
    adapter = random_adapter(sparsity=None)
    modules = {n: LayerSpec(m.d_in, m.d_out, 600, 1) for n, m in adapter.modules.items()}
    with pytest.raises(AdapterError, match=r"rank 600 is larger than vLLM can serve \(512\)"):
        peft_file.export_peft(replace(adapter, modules=modules), tmp_path / "x", serving="vllm")
