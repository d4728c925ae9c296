"""Adapters as PEFT saves them that hold more than lora_A and lora_B of linear layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import lori_core as lori
from lori_cli import main
from lori_core.adapters import base_choice
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError
from lori_core.methods import finetuned_model
from support import refused

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*embedding layers found in `target_modules`", "ignore:.*tie_word_embeddings=True"
)

SIZES: dict[str, Any] = {
    "vocab_size": 260,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "untied": {"kind": "llama", "tie_word_embeddings": False},
    "tied": {"kind": "llama", "tie_word_embeddings": True},
    "experts": {"kind": "mixtral", "num_local_experts": 2},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small bases, by the names of `KINDS`."""
    folder = tmp_path_factory.mktemp("bases")
    for name, options in KINDS.items():
        torch.manual_seed(0)
        own = dict(options)
        config = AutoConfig.for_model(own.pop("kind"), **SIZES, **own)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


def trained(base: Path, folder: Path, **options: Any) -> Path:
    """Save an adapter of a base by PEFT, as its users do."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **options)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("base", "options", "reason"),
    [
        ("untied", {"target_modules": ["embed_tokens"]}, "the LoRA of an embedding"),
        (
            "untied",
            {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
            "modules_to_save is set (['lm_head']): whole modules were trained",
        ),
        (
            "untied",
            {"target_modules": ["q_proj"], "trainable_token_indices": [1]},
            "rows of the embedding were trained",
        ),
        (
            "experts",
            {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]},
            "parameters that stack experts' matrices were adapted",
        ),
    ],
    ids=["embedding", "modules_to_save", "tokens", "target_parameters"],
)
def test_more_than_a_low_rank_update_is_refused_with_the_way_out(
    bases: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    base: str,
    options: dict[str, Any],
    reason: str,
) -> None:
    folder = trained(bases / base, tmp_path / "theirs", **options)
    with pytest.raises(AdapterError) as raised:
        peft_file.open_adapter(folder)
    assert reason in str(raised.value)
    assert "merge_and_unload()) and use the result as the base" in str(raised.value)
    out = tmp_path / "out"
    capsys.readouterr()  # progress bars
    assert "merge_and_unload" in refused(capsys, "export", str(folder), str(out), "--to", "peft")
    assert not out.exists()


@pytest.mark.parametrize("base", ["untied", "tied"])
def test_an_adapter_of_the_head_is_compared_with_the_base(
    bases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], base: str
) -> None:
    """PEFT saves the head's weight, too; the export has the same logits without it."""
    place = shutil.copytree(bases / base, tmp_path / "moved")
    folder = trained(bases / base, tmp_path / "head", target_modules=["q_proj", "lm_head"])
    assert any("base_layer" in name for name in load_file(folder / "adapter_model.safetensors"))
    with pytest.raises(AdapterError, match=r"holds a copy of the base's lm_head.*--base"):
        peft_file.open_adapter(folder)
    capsys.readouterr()  # progress bars
    assert "name the base with --base" in refused(
        capsys, "merge", str(folder), "-o", str(tmp_path / "m")
    )
    assert main(["inspect", str(folder)]) == 0
    assert "copies of the base's lm_head, not compared with it" in capsys.readouterr().out
    merged = lori.merge([folder], base=str(place))
    assert "base_copies" not in merged.info
    out = tmp_path / "out"
    assert main(["export", str(folder), str(out), "--to", "peft", "--base", str(place)]) == 0
    exported = json.loads((out / "adapter_config.json").read_text())
    assert exported["base_model_name_or_path"] == str(place)
    tokens = torch.arange(12).view(1, -1)
    logits = []
    for adapter in (folder, out):
        model = AutoModelForCausalLM.from_pretrained(place)
        with torch.no_grad():
            logits.append(PeftModel.from_pretrained(model, adapter)(tokens).logits)
    assert torch.equal(*logits)


def test_a_moved_base_with_other_weights_is_refused(
    bases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(bases / "untied", tmp_path / "other")
    weights = other / "model.safetensors"
    moved = {name: tensor + 0.5 for name, tensor in load_file(weights).items()}
    save_file(moved, weights, {"format": "pt"})
    folder = trained(bases / "untied", tmp_path / "head", target_modules=["lm_head"])
    shutil.copytree(bases / "untied", tmp_path / "same")
    out = tmp_path / "out"
    capsys.readouterr()  # progress bars
    with pytest.raises(AdapterError, match="holds another weight of lm_head than"):
        lori.merge([folder], base=str(other))
    opened = finetuned_model.open_model(folder, copies=True)  # as `lori.evaluate` opens it
    chosen = base_choice.choose(str(other), {"adapter": opened})
    with pytest.raises(AdapterError, match="holds another weight of lm_head than"):
        chosen.of({"adapter": opened})
    for to in ("peft", "merged"):
        line = refused(capsys, "export", str(folder), str(out), "--to", to, "--base", str(other))
        assert f"holds another weight of lm_head than {other}" in line
        assert not out.exists()
    arguments = ["--to", "merged", "--base", str(tmp_path / "same")]
    assert main(["export", str(folder), str(out), *arguments]) == 0
    merged = load_file(out / "model.safetensors")["lm_head.weight"]
    model = AutoModelForCausalLM.from_pretrained(bases / "untied")
    theirs = PeftModel.from_pretrained(model, folder).merge_and_unload().lm_head.weight
    torch.testing.assert_close(merged, theirs.data)


def test_a_whole_weight_without_lora_is_refused(bases: Path, tmp_path: Path) -> None:
    folder = trained(bases / "untied", tmp_path / "q", target_modules=["q_proj"])
    file = folder / "adapter_model.safetensors"
    name = "base_model.model.lm_head.base_layer.weight"
    save_file(load_file(file) | {name: torch.zeros(2, 2)}, file)
    with pytest.raises(AdapterError, match=r"holds \S*lm_head\.base_layer\.weight, a whole weight"):
        peft_file.open_adapter(folder, copies=True)
