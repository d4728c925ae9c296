"""`lori extract`: what it writes and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lori_cli import main
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.peft_format import peft_file
from support import peft_folder, random_adapter, refused, tiny

NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
Change = Callable[[dict[str, Tensor]], None]


def copied(architecture: str, folder: Path, change: Change) -> Path:
    """Write a copy of a tiny model with other weights."""
    shutil.copytree(tiny(architecture)[1], folder)
    (folder / "lori_model.json").unlink()
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file({name: value.contiguous() for name, value in weights.items()}, file, {"format": "pt"})
    return folder


def stored_name(weights: dict[str, Tensor], module: str) -> str:
    """Return the name of a module's weight: GPT-2's are stored without their prefix."""
    (name,) = [n for n in weights if f"{module}.weight".endswith(n) and n.endswith(".weight")]
    return name


def with_update(adapter: Adapter, *, transposed: bool = False) -> Change:
    def change(weights: dict[str, Tensor]) -> None:
        for module in adapter.modules:
            delta = adapter.delta(module)
            weights[stored_name(weights, module)] += delta.T if transposed else delta

    return change


def shifted(*names: str) -> Change:
    def change(weights: dict[str, Tensor]) -> None:
        for name in names:
            weights[name] = weights[name] + 0.25

    return change


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_update_of_rank_8_comes_back(
    here: Path, capsys: pytest.CaptureFixture[str], architecture: str
) -> None:
    update = random_adapter(architecture, rank=8, sparsity=None)
    copied(architecture, here / "tuned", with_update(update, transposed=architecture == "gpt2"))
    assert main(["extract", f"random:{architecture}", "tuned", "--rank", "8", "-o", "out"]) == 0
    found = peft_file.open_adapter(here / "out")
    assert found.modules.keys() == update.modules.keys()
    for name in update.modules:
        expected = update.delta(name)
        assert float((found.delta(name) - expected).norm()) < 1e-5 * float(expected.norm())
    said = found.info["extraction"]
    assert said["kept"] == pytest.approx(1, abs=1e-6)
    assert said["modules"].keys() == found.modules.keys()
    assert (said["rank"], said["ignored"]) == (8, [])
    assert found.base.content() == tiny(architecture)[2].content()
    shown = capsys.readouterr().out
    assert "out: a PEFT adapter of rank 8, 100.00% of the squared norm" in shown


def test_a_lower_rank_keeps_the_share_that_it_says(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    update = random_adapter(rank=8, sparsity=None)
    copied("llama", here / "tuned", with_update(update))
    assert main(["extract", "random:llama", "tuned", "--rank", "3", "-o", "out"]) == 0
    found = peft_file.open_adapter(here / "out")
    norms, kept = 0.0, 0.0
    for name, share in found.info["extraction"]["modules"].items():
        s = torch.linalg.svdvals(update.delta(name).double()).square()
        assert share == pytest.approx(float(s[:3].sum() / s.sum()), rel=1e-4)
        norms, kept = norms + float(s.sum()), kept + float(s[:3].sum())
    assert found.info["extraction"]["kept"] == pytest.approx(kept / norms, rel=1e-4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "modules", "squared", "norm", "kept:", "mean,", "least"]
    assert lines[1].split()[:2] == ["q_proj", "2"]
    assert len(lines) == 2 + len({name.rsplit(".", 1)[-1] for name in update.modules})
    # Peft loads it as it is, and another extraction takes its place.
    from peft import PeftModel

    PeftModel.from_pretrained(tiny("llama")[0], here / "out")
    before = (here / "out" / "adapter_model.safetensors").read_bytes()
    assert main(["extract", "random:llama", "tuned", "--rank", "3", "-o", "out"]) == 0
    assert (here / "out" / "adapter_model.safetensors").read_bytes() == before


def test_only_layers_that_differ_get_an_adapter(here: Path) -> None:
    copied("llama", here / "tuned", shifted(Q_PROJ))
    assert main(["extract", "random:llama", "tuned", "-o", "out"]) == 0
    found = peft_file.open_adapter(here / "out")
    assert list(found.modules) == [Q_PROJ.removesuffix(".weight")]
    assert torch.allclose(found.delta(*found.modules), torch.full((64, 64), 0.25), atol=1e-6)


def test_other_parameters_that_differ_are_listed_and_can_be_left_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied("llama", here / "tuned", shifted(NORM, EMBEDDING, Q_PROJ))
    line = refused(capsys, "extract", "random:llama", "tuned", "-o", "out")
    assert "more than linear layers' weights differs from the base" in line
    assert NORM in line
    assert EMBEDDING in line
    assert "--ignore-others" in line
    assert not (here / "out").exists()
    assert main(["extract", "random:llama", "tuned", "--ignore-others", "-o", "out"]) == 0
    assert "changes left out: " in capsys.readouterr().out
    found = peft_file.open_adapter(here / "out")
    assert set(found.info["extraction"]["ignored"]) == {NORM, EMBEDDING}
    assert main(["inspect", "out"]) == 0
    shown = capsys.readouterr().out
    name = Q_PROJ.removesuffix(".weight")
    kept = f"of a module in the mean 100.00%, at least 100.00% ({name})"
    assert f"  extracted    rank 32, 100.00% of the squared norm kept; {kept}\n" in shown
    assert f"  left out     {', '.join(found.info['extraction']['ignored'])}\n" in shown
    assert list(found.modules) == [Q_PROJ.removesuffix(".weight")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rope_theta": 5e5, "rope_parameters": None}, "rope_parameters.rope_theta"),
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_a_setting_that_decides_the_computation_is_listed_and_can_be_left_out(
    here: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    copied("llama", here / "tuned", shifted(Q_PROJ))
    changed_settings(here / "tuned", change)
    line = refused(capsys, "extract", "random:llama", "tuned", "-o", "out")
    assert f"differs from the base: config.json: {said}; an adapter cannot hold it" in line
    assert main(["extract", "random:llama", "tuned", "--ignore-others", "-o", "out"]) == 0
    assert f"changes left out: config.json: {said}\n" in capsys.readouterr().out
    found = peft_file.open_adapter(here / "out")
    assert found.info["extraction"]["ignored"] == [f"config.json: {said}"]


def test_settings_that_decide_nothing_may_differ(here: Path) -> None:
    copied("llama", here / "tuned", shifted(Q_PROJ))
    change = {"eos_token_id": 0, "torch_dtype": "bfloat16", "use_cache": False, "_name_or_path": ""}
    change |= {"architectures": ["Other"], "attention_dropout": 0.1, "transformers_version": "4.0"}
    changed_settings(here / "tuned", change)
    assert main(["extract", "random:llama", "tuned", "-o", "out"]) == 0


def changed_settings(folder: Path, change: dict[str, Any]) -> None:
    """Change settings of a model folder; None removes one."""
    config = json.loads((folder / "config.json").read_text()) | change
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def test_what_cannot_be_extracted_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_a_number(weights: dict[str, Tensor]) -> None:
        weights[Q_PROJ][0, 0] = torch.nan

    copied("llama", here / "same", lambda weights: None)
    copied("llama", here / "nan", not_a_number)
    copied("llama", here / "tuned", shifted(Q_PROJ))
    shutil.copytree(here / "tuned", here / "wide")
    config = json.loads((here / "wide" / "config.json").read_text())
    config["intermediate_size"] += 8
    (here / "wide" / "config.json").write_text(json.dumps(config))
    peft_folder(here / "taken")

    def line(*argv: str) -> str:
        return refused(capsys, "extract", *argv)

    assert "no linear layer differs from the base" in line("random:llama", "same", "-o", "out")
    assert f"{Q_PROJ} holds NaN" in line("random:llama", "nan", "-o", "out")
    assert f"{Q_PROJ} holds NaN" in line("nan", "random:llama", "-o", "out")
    assert "is the base itself" in line("same", "./same", "-o", "out")
    assert "is a LlamaForCausalLM, and the base" in line("random:gpt2", "tuned", "-o", "out")
    shapes = line("random:llama", "wide", "-o", "out")
    assert "mlp.gate_proj.weight is [" in shapes
    assert "FINETUNED: " in line("random:llama", "nowhere", "-o", "out")
    assert "BASE: " in line("nowhere", "tuned", "-o", "out")
    assert "error: BASE: a hub model needs its commit" in line("no/where", "tuned", "-o", "out")
    assert "--rank" in line("random:llama", "tuned", "--rank", "0", "-o", "out")
    assert "earlier output of lori extract" in line("random:llama", "tuned", "-o", "taken")
    assert "is, or lies in, the input" in line("random:llama", "tuned", "-o", "tuned/out")
    assert not (here / "out").exists()
