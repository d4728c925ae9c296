"""Parity of each method with stock PEFT, and the counts of the paper's tables."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    VeraConfig,
    get_peft_model,
)
from peft.optimizers import create_lorafa_optimizer
from transformers import AutoModelForCausalLM, LlamaConfig

from lori_cli import main
from lori_core.config import LoriSection
from lori_core.core.errors import ConfigError
from lori_core.methods import catalogue
from lori_core.models import base_model
from support import TARGETS, tiny

COMMON: dict[str, Any] = {"target_modules": list(TARGETS["llama"]), "task_type": "CAUSAL_LM"}
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, **COMMON}
STOCK: dict[str, Any] = {
    "lora": LoraConfig(**LORA),
    "dora": LoraConfig(**LORA, use_dora=True),
    "ia3": IA3Config(**COMMON, feedforward_modules=["down_proj"]),
    "lora-fa": LoraConfig(**LORA),
    "adalora": AdaLoraConfig(init_r=8, target_r=4, total_step=1000, lora_alpha=16, **COMMON),
    "rslora": LoraConfig(**LORA, use_rslora=True),
    "pissa": LoraConfig(**LORA, init_lora_weights="pissa_niter_4"),
    "lora-plus": LoraConfig(**LORA),
}
#: Millions of trained parameters at rank 32 on Llama-3-8B (Tables 1 and 11).
PAPER = {
    "full": 8030,
    "lora": 84,
    "dora": 85,
    "vera": 1.38,
    "ia3": 1.70,
    "lora-fa": 44,
    "lori-d": 44,
    "lori-s": 4.4,
}


def section(rank: int = 8) -> LoriSection:
    return LoriSection(rank=rank, lora_alpha=2 * rank)


def trained(model: Any) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in model.named_parameters() if p.requires_grad}


def built(name: str, **values: Any) -> Any:
    chosen = catalogue.options(name, values, "tasks.math")
    return catalogue.build(name, tiny("llama")[0], section(), chosen)


def llama3_8b() -> Any:
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", STOCK)
def test_what_is_trained_is_what_stock_peft_trains(name: str) -> None:
    stock = get_peft_model(tiny("llama")[0], STOCK[name])
    if name == "lora-fa":
        create_lorafa_optimizer(model=stock, r=8, lora_alpha=16, lr=1e-3)
    assert trained(built(name)) == trained(stock)


@pytest.mark.filterwarnings("ignore:Specified to not save vera_A")
def test_vera_is_stock_peft_drawn_from_a_seed() -> None:
    stock = get_peft_model(
        tiny("llama")[0],
        VeraConfig(r=8, projection_prng_key=3, save_projection=False, **COMMON),
    )
    ours = built("vera", projection_seed=3)
    assert trained(ours) == trained(stock)
    buffers = dict(ours.named_buffers())
    assert all(torch.equal(buffers[name], drawn) for name, drawn in stock.named_buffers())


def test_full_trains_the_whole_base() -> None:
    base = tiny("llama")[0]
    shapes = {name: p.shape for name, p in base.named_parameters()}
    assert trained(catalogue.build("full", base, section(), catalogue.NoOptions())) == shapes


@pytest.mark.parametrize("name", PAPER)
def test_the_counts_of_the_paper(name: str) -> None:
    cost = catalogue.cost(name, llama3_8b(), section(32), catalogue.options(name, {}, "x"))
    digits = 2 if PAPER[name] < 2 else 1 if PAPER[name] < 10 else 0
    assert round(cost.trainable / 1e6, digits) == PAPER[name]
    assert cost.state_bytes == 16 * cost.trainable


def test_what_a_result_keeps() -> None:
    def kept(name: str) -> int:
        chosen = catalogue.options(name, {}, "x")
        return catalogue.cost(name, llama3_8b(), section(32), chosen).artifact_bytes

    a, b = 32 * 32 * 38_912, 44_040_192  # the inputs of the seven targets sum up to 38,912
    assert kept("lora") == kept("lora-fa") == kept("pissa") == 4 * (a + b)
    assert kept("vera") == 4 * 1_383_424
    assert kept("lori-d") == 4 * b
    values = b - int(b * 9 // 10)
    assert kept("lori-s") == pytest.approx(4 * values + 0.4689956 * b / 8, rel=1e-6)
    assert kept("full") == 4 * 8_030_261_248


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("lorra", {}, r"tasks.math: method 'lorra' is unknown; did you mean 'lora'"),
        ("lora", {"ratio": 2}, r"tasks.math: lora has no options, got ratio"),
        (
            "vera",
            {"projection_sed": 1},
            r"tasks.math.projection_sed: unknown key; did you mean 'projection_seed'",
        ),
        ("adalora", {"target_rank": 0}, r"tasks.math.target_rank: input should be gr"),
    ],
)
def test_what_a_method_does_not_know_is_refused(
    name: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        catalogue.options(name, values, "tasks.math")


def test_a_target_the_base_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="'c_attn' matches no linear module"):
        catalogue.build(
            "lora", tiny("llama")[0], LoriSection(target_modules=("c_attn",)), catalogue.NoOptions()
        )


def test_an_outline_has_the_models_shapes_and_no_values() -> None:
    model, folder, _ = tiny("llama")
    outline = base_model.outline(folder)
    assert {n: p.shape for n, p in outline.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    assert {p.device.type for p in outline.parameters()} == {"meta"}


def test_a_folder_without_a_model_has_no_outline(tmp_path: Path) -> None:
    with pytest.raises(base_model.ModelError, match="cannot be read"):
        base_model.outline(tmp_path)


def test_the_command_lists_every_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = Path(__file__).parents[2] / "profiles" / "smoke.yaml"
    (tmp_path / "params.yaml").write_text(profile.read_text())
    monkeypatch.chdir(tmp_path)
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == list(catalogue.METHODS)
