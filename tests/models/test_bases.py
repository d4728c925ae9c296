"""Bases whose names on disk differ from those in memory: PEFT's numbers, or a refusal."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from bases import ATTENTION, BASES, SEVEN, base_folder, loaded, logits
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, conversion_mapping
from transformers.core_model_loading import Transpose, WeightConverter

from lori_core.adapters import attach, merge_into_base
from lori_core.adapters.adapter import Adapter, ProjectionBlock, uniform
from lori_core.adapters.peft_format import peft_file
from lori_core.config import ModelSection, parse
from lori_core.core.errors import AdapterError, ConfigError, ModelError
from lori_core.core.tracking import NullTracker
from lori_core.cost import bases as cost_bases
from lori_core.data.batching import collate
from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded
from lori_core.data.sources import pulling
from lori_core.merging.merge import merge
from lori_core.methods.loaded_model import load_model
from lori_core.methods.tuning import Tuning, tune
from lori_core.models import base_model, peft_names
from lori_core.training import trainer
from lori_core.training.kernels import packed_attention
from lori_core.training.kernels.packed_batches import changes_logits
from lori_core.training.loss import sequence_loss
from support import refused

RANK, ALPHA = 2, 6
CAUSAL = [kind for kind in BASES if kind != "llava"]
Sizes = Mapping[str, tuple[int, int]]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def adapter_on(folder: Path, model: Any, targets: tuple[str, ...]) -> Adapter:
    """Return an adapter with random B on a base."""
    shapes = peft_names.target_shapes(model, targets)
    random = torch.Generator().manual_seed(1)
    return Adapter(
        base=base_model.identity(ModelSection(name_or_path=str(folder)), folder),
        modules=uniform(shapes, RANK, ALPHA),
        blocks=(ProjectionBlock(1, "task", RANK),),
        mask=None,
        values={
            name: torch.randn(d_out * RANK, generator=random) / 4
            for name, (_, d_out) in shapes.items()
        },
        info={"task": "task"},
        fan_in_fan_out=peft_names.fan_in_fan_out(model, shapes),
        matched_by=tuple(peft_names.targets_of(model, shapes)),
    )


def bake(folder: Path, adapter: Adapter, out: Path) -> merge_into_base.Merged:
    return merge_into_base.merge_into_base(
        folder,
        out,
        {name: (m.d_in, m.d_out) for name, m in adapter.modules.items()},
        lambda n: merge_into_base.Update(adapter.A(n), adapter.B(n), adapter.scaling(n)),
    )


def foreign(folder: Path, base: Path, sizes: Sizes, targets: list[str], **more: Any) -> Path:
    """Write a stock PEFT folder with random A and B for modules by any names."""
    folder.mkdir()
    random = torch.Generator().manual_seed(1)
    tensors = {}
    for name, (d_in, d_out) in sizes.items():
        for side, shape in (("A", (RANK, d_in)), ("B", (d_out, RANK))):
            key = peft_names.weight_key(name, side)
            tensors[key] = torch.randn(shape, generator=random) / 2
    save_file(tensors, folder / peft_names.WEIGHTS_FILE, {"format": "pt"})
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base),
        **more,
    )
    config.save_pretrained(folder)
    return folder


def stock(folder: Path, base: Path) -> Any:
    """Return PEFT's own model of a folder."""
    model: Any = PeftModel.from_pretrained(loaded(base), folder)
    return model


@pytest.mark.parametrize("kind", CAUSAL)
def test_every_way_of_using_an_adapter_gives_pefts_numbers(
    kind: str, bases: Path, tmp_path: Path
) -> None:
    folder = base_folder(kind, bases)
    before = logits(loaded(folder))
    adapter = adapter_on(folder, loaded(folder), BASES[kind][1])
    worn = logits(attach.apply_adapter(loaded(folder), adapter))
    assert (worn - before).abs().max() > 0.01
    peft_file.export_peft(adapter, tmp_path / "peft")
    theirs = stock(tmp_path / "peft", folder)
    assert list(peft_names.lora_layers(theirs)) == list(adapter.modules)
    torch.testing.assert_close(worn, logits(theirs), rtol=0, atol=0)
    assert bake(folder, adapter, tmp_path / "baked").tensors == len(adapter.modules)
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked", dtype=torch.float32)
    merged = logits(theirs.merge_and_unload())
    torch.testing.assert_close(logits(baked), merged, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged, worn, rtol=1e-4, atol=1e-5)


def test_attention_dropout_is_seen_in_the_language_models_part_of_a_config(bases: Path) -> None:
    model = loaded(base_folder("gemma3", bases))
    assert not trainer.draws_dropout(model)
    model.config.text_config.attention_dropout = 0.1
    assert trainer.draws_dropout(model)


@pytest.mark.parametrize("kind", CAUSAL)
def test_the_loss_that_is_trained_on_is_the_models_own(kind: str, bases: Path) -> None:
    """Also where its logits are changed by a setting in a part of its configuration (Gemma 4)."""
    folder = base_folder(kind, bases)
    base = loaded(folder)
    model = attach.apply_adapter(base, adapter_on(folder, loaded(folder), BASES[kind][1])).eval()
    random = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 250, (3, 9), generator=random).tolist()
    rows = [Encoded(row[:4], row[4:], False) for row in ids]
    with torch.no_grad():
        own = model(input_ids=torch.tensor(ids)).logits[:, 3:-1].flatten(0, 1)
        expected = nn.functional.cross_entropy(own, torch.tensor(ids)[:, 4:].flatten())
        packs = not changes_logits(base) and packed_attention.unsupported_reason(base) is None
        with trainer.computing(model, base, packs=packs):
            batch = pack_batch(rows) if packs else collate(rows, 259)
            found = sequence_loss(model, batch) / (3 * 5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_only_the_language_model_of_a_model_of_pictures_is_adapted(bases: Path) -> None:
    model = loaded(base_folder("gemma3", bases))
    found = peft_names.target_shapes(model, ("q_proj", "v_proj"))
    inside = "model.language_model.layers"
    assert list(found) == [
        f"{inside}.{n}.self_attn.{p}" for n in (0, 1) for p in ("q_proj", "v_proj")
    ]
    assert peft_names.targets_of(model, found) == sorted(found)
    assert peft_names.left_out(model, ("q_proj",)) == {
        "text never reaches it": ["model.vision_tower"]
    }
    # `mlp` is in both towers, `gate_proj` only in one.
    assert peft_names.left_out(model, ("gate_proj",)) == {}
    assert peft_names.targets_of(model, peft_names.target_shapes(model, ["gate_proj"])) == [
        "gate_proj"
    ]
    for target in ("fc1", "vision_tower.encoder.layers.0.self_attn.q_proj"):
        with pytest.raises(ConfigError, match=r"modules of model\.vision_tower only, which text"):
            peft_names.target_shapes(model, [target])


def test_layers_that_wait_for_pictures_are_left_out(bases: Path) -> None:
    model = loaded(base_folder("mllama", bases))
    found = peft_names.target_shapes(model, SEVEN)
    assert {name.split(".")[2] for name in found} == {"0"}
    assert peft_names.left_out(model, SEVEN) == {"text never reaches it": ["model.layers.1"]}


def test_a_target_may_be_a_fuller_name(bases: Path) -> None:
    model = loaded(base_folder("qwen2_moe", bases))
    assert list(peft_names.target_shapes(model, ["layers.1.self_attn.q_proj"])) == [
        "model.layers.1.self_attn.q_proj"
    ]
    found = peft_names.target_shapes(model, ["shared_expert.up_proj", "k_proj"])
    assert {name.split(".", 3)[3] for name in found} == {
        "mlp.shared_expert.up_proj",
        "self_attn.k_proj",
    }
    with pytest.raises(ConfigError, match=r"'attn\.q_proj' matches no linear module"):
        peft_names.target_shapes(model, ["attn.q_proj"])


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("mixtral", "w1", r"experts' matrices are kept in one tensor, \S+experts\.gate_up_proj"),
        ("olmoe", "down_proj", r"kept in one tensor, \S+experts\.down_proj, and cannot be adapted"),
        ("gpt_oss", "gate_up_proj", r"kept in one tensor, \S+experts\.gate_up_proj"),
        ("mixtral", "gate", r"model\.layers\.0\.mlp\.gate is a MixtralTopKRouter"),
        (
            "qwen3_moe",
            "gate_proj",
            r"gate_proj: PEFT takes such a name in this model \(qwen3_moe\)",
        ),
        ("deepseek_v3", "up_proj", r"up_proj: PEFT takes such a name in this model"),
        ("opt", "embed_positions", "is a OPTLearnedPositionalEmbedding"),
        ("gpt_neox", "mlp", "is a GPTNeoXMLP"),
    ],
)
def test_what_is_no_module_of_its_own_is_no_target(
    kind: str, target: str, message: str, bases: Path
) -> None:
    model = base_model.outline(base_folder(kind, bases))
    with pytest.raises(ConfigError, match=rf"lori\.target_modules: .*{message}"):
        peft_names.target_shapes(model, ["q_a_proj" if kind == "deepseek_v3" else target, target])


def test_experts_beside_a_shared_one_are_said_to_be_left_out(bases: Path) -> None:
    model = loaded(base_folder("qwen2_moe", bases))
    assert peft_names.left_out(model, ATTENTION) == {}
    assert peft_names.left_out(model, ["up_proj", "down_proj"]) == {
        "experts' matrices are kept in one tensor": [
            "model.layers.*.mlp.experts.down_proj",
            "model.layers.*.mlp.experts.gate_up_proj",
        ]
    }


def test_a_module_in_two_places_is_no_target() -> None:
    model = nn.ModuleDict({"first": nn.ModuleDict({"up": nn.Linear(2, 3)})})
    model["second"] = nn.ModuleDict({"up": model["first"]["up"]})
    with pytest.raises(ConfigError, match=r"first\.up and second\.up are the same module"):
        peft_names.target_shapes(model, ["up"])


EXPERTS = {
    f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}": sizes
    for layer in range(2)
    for expert in range(4)
    for name, sizes in (("w1", (32, 48)), ("w2", (48, 32)), ("w3", (32, 48)))
}


def test_an_adapter_of_single_experts_is_baked_and_not_put_on(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = base_folder("mixtral", bases)
    folder = foreign(tmp_path / "v4", base, EXPERTS, ["w1", "w2", "w3"])
    adapter = peft_file.import_peft(folder)
    assert bake(base, adapter, tmp_path / "out").tensors == len(EXPERTS)
    with pytest.warns(RuntimeWarning, match="pattern keys did not match"):
        expected = logits(stock(folder, base))
    found = logits(loaded(tmp_path / "out"))
    assert (expected - logits(loaded(base))).abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    message = r"experts\.0\.w1: the model stores it in model\.layers\.0\.mlp\.experts\.gate_up_proj"
    with pytest.raises(AdapterError, match=rf"{message} .*lori export --to merged"):
        attach.apply_adapter(loaded(base), adapter)
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "evaluate", "v4", "--tasks", "bundled-nlu", "--limit", "1")
    assert re.search(message, line)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    "names",
    ["language_model.model.layers.{}.self_attn.{}", "model.language_model.layers.{}.self_attn.{}"],
)
def test_names_of_any_release_of_transformers_are_found(
    names: str, bases: Path, tmp_path: Path
) -> None:
    base = base_folder("gemma3", bases)
    sizes = {
        names.format(n, p): (32, d_out)
        for n in (0, 1)
        for p, d_out in (("q_proj", 32), ("v_proj", 16))
    }
    folder = foreign(tmp_path / "peft", base, sizes, ["q_proj", "v_proj"])
    adapter = peft_file.import_peft(folder)
    with pytest.warns(UserWarning, match=r"missing adapter keys .*vision_tower"):
        expected = logits(stock(folder, base))
    assert (expected - logits(loaded(base))).abs().max() > 0.01
    torch.testing.assert_close(
        logits(attach.apply_adapter(loaded(base), adapter)), expected, rtol=0, atol=0
    )
    assert bake(base, adapter, tmp_path / "out").tensors == 4
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), expected, rtol=1e-4, atol=1e-5)


def test_two_names_of_one_module_are_refused(bases: Path, tmp_path: Path) -> None:
    base = base_folder("gemma3", bases)
    ends = (
        "language_model.model.layers.0.mlp.up_proj",
        "model.language_model.layers.0.mlp.up_proj",
    )
    folder = foreign(tmp_path / "peft", base, dict.fromkeys(ends, (32, 48)), ["up_proj"])
    adapter = peft_file.import_peft(folder)
    with pytest.raises(AdapterError, match=rf"modules {ends[0]} and {ends[1]} are both {ends[1]}"):
        attach.apply_adapter(loaded(base), adapter)
    with pytest.raises(AdapterError, match=rf"{ends[0]} and {ends[1]} share the weight {ends[0]}"):
        bake(base, adapter, tmp_path / "out")


def test_maps_kept_both_ways_round_are_adapted_together(bases: Path, tmp_path: Path) -> None:
    base = base_folder("gpt2", bases)
    untied = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": False}
    base = shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    head = {"lm_head.weight": weights["transformer.wte.weight"].clone()}
    save_file(weights | head, base / "model.safetensors", {"format": "pt"})
    (base / "config.json").write_text(json.dumps(untied))
    adapter = adapter_on(base, loaded(base), ("attn.c_proj", "lm_head"))
    worn = logits(attach.apply_adapter(loaded(base), adapter))
    assert bake(base, adapter, tmp_path / "out").tensors == 3
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), worn, rtol=1e-4, atol=1e-5)


def test_an_adapter_of_the_language_model_alone_fits_the_larger_model(
    bases: Path, tmp_path: Path
) -> None:
    """A model of pictures that has no class of causal language model can still be baked into."""
    small, large = base_folder("llama", bases), base_folder("llava", bases)
    adapter = adapter_on(small, loaded(small), SEVEN)
    assert bake(large, adapter, tmp_path / "out").tensors == len(adapter.modules)
    before, after = (
        transformers.LlavaForConditionalGeneration.from_pretrained(f).state_dict()
        for f in (large, tmp_path / "out")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    inside = {f"model.language_model.{n.removeprefix('model.')}.weight" for n in adapter.modules}
    assert changed == inside
    with pytest.raises(ModelError, match="cannot be read: Unrecognized configuration class"):
        base_model.outline(large)


def test_a_square_weight_of_gpt2_is_turned_whatever_the_adapter_says(
    bases: Path, tmp_path: Path
) -> None:
    base = base_folder("gpt2", bases)
    sizes = {f"transformer.h.{n}.attn.c_proj": (32, 32) for n in (0, 1)}
    folder = foreign(tmp_path / "peft", base, sizes, ["attn.c_proj"], fan_in_fan_out=False)
    adapter = peft_file.import_peft(folder)
    assert not adapter.fan_in_fan_out
    with pytest.warns(UserWarning, match="fan_in_fan_out is set to False but"):
        expected = logits(stock(folder, base))
    bake(base, adapter, tmp_path / "out")
    assert (expected - logits(loaded(base))).abs().max() > 0.01
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), expected, rtol=1e-4, atol=1e-5)
    right = replace(adapter, fan_in_fan_out=True)
    both = merge("concat", [adapter, right], [0.25, 0.75])
    assert both.fan_in_fan_out
    bake(base, both, tmp_path / "both")
    torch.testing.assert_close(logits(loaded(tmp_path / "both")), expected, rtol=1e-4, atol=1e-5)


def test_a_linear_weight_is_never_turned(bases: Path, tmp_path: Path) -> None:
    base = base_folder("llama", bases)
    sizes = {"model.layers.0.self_attn.q_proj": (32, 32)}
    folder = foreign(tmp_path / "peft", base, sizes, ["q_proj"], fan_in_fan_out=True)
    (folder / peft_names.CONFIG_FILE).write_text(
        json.dumps(
            json.loads((folder / peft_names.CONFIG_FILE).read_text()) | {"layers_to_transform": [0]}
        )
    )
    with pytest.warns(UserWarning, match="fan_in_fan_out is set to True but"):
        expected = logits(stock(folder, base))
    bake(base, peft_file.import_peft(folder), tmp_path / "out")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "module", "message"),
    [
        ("llama", "model.layers.2.mlp.up_proj", "the model has none of that name"),
        ("llama", "model.layers.1.mlp.up", "the model has none of that name"),
        ("mixtral", "model.layers.0.mlp.gate_proj", "the model has none of that name"),
        ("mixtral", "model.layers.0.mlp.gate", "the model has none of that name"),
        ("gemma3", "vision_tower.layers.7.self_attn.q_proj", "the model has none of that name"),
        ("gemma3", "model.layers.7.self_attn.q_proj", "the model has none of that name"),
    ],
)
def test_a_module_that_the_base_lacks_is_refused_by_name(
    kind: str, module: str, message: str, bases: Path, tmp_path: Path
) -> None:
    base = base_folder(kind, bases)
    adapter = adapter_on(base, loaded(base), ("q_proj",))
    (own, *_) = adapter.modules
    odd = replace(
        adapter,
        modules=adapter.modules | {module: adapter.modules[own]},
        values=dict(adapter.values) | {module: adapter.values[own]},
    )
    with pytest.raises(AdapterError, match=rf"{module}: .*{message}"):
        attach.apply_adapter(loaded(base), odd)
    with pytest.raises(AdapterError, match=module):
        bake(base, odd, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text", "gemma3", "bloom"])
def test_an_output_layer_that_is_the_embedding_is_adapted_but_not_baked(
    kind: str, bases: Path, tmp_path: Path
) -> None:
    """Configs of older releases do not say that both are one: it is their class's default."""
    base = shutil.copytree(base_folder(kind, bases), tmp_path / "base")
    said = json.loads((base / "config.json").read_text())
    for section in (said, said.get("text_config", {})):
        section.pop("tie_word_embeddings", None)
    (base / "config.json").write_text(json.dumps(said))
    model = base_model.outline(base)
    assert list(peft_names.target_shapes(model, ["lm_head"])) == ["lm_head"]
    adapter = replace(adapter_on(base, model, ("lm_head",)))
    with pytest.raises(AdapterError, match=r"lm_head shares its weight with .*(embed|wte)"):
        bake(base, adapter, tmp_path / "out")


def test_a_weight_that_is_changed_at_loading_is_not_baked(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_folder("llama", bases)
    conversion_mapping.get_checkpoint_conversion_mapping("llama")  # its table is made at first use
    rule = WeightConverter("q_proj.weight", "q_proj.weight", [Transpose()])
    table = conversion_mapping._checkpoint_conversion_mapping_cache
    monkeypatch.setitem(table, "llama", [rule])
    adapter = adapter_on(base, base_model.outline(base), ("q_proj",))
    message = r"q_proj: transformers computes its weight from .*q_proj\.weight \(Transpose\)"
    with pytest.raises(AdapterError, match=message):
        bake(base, adapter, tmp_path / "out")


def test_training_on_a_model_of_pictures_says_what_it_leaves_out(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = base_folder("gemma3", bases)
    params = parse(
        {
            "model": {"name_or_path": str(base), "dtype": "float32"},
            "lori": {"rank": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "v_proj"]},
            "training": {"learning_rate": 0.1, "batch_size": 4, "max_steps": 2},
            "tasks": {"math": {"source": "bundled-math", "calibration": {}, "training": {}}},
        },
        "params.yaml",
    )
    pulling.pull(params)
    session = load_model(params, scoring=False)
    said = "lori.target_modules: no adapter in model.vision_tower: text never reaches it"
    assert capsys.readouterr().err.splitlines().count(said) == 1
    section = params.phase("math", "training")
    adapter, _ = tune(session, Tuning("train@math", "math", "lori-d", section), NullTracker())
    assert isinstance(adapter, Adapter)
    assert all(name.startswith("model.language_model.") for name in adapter.modules)
    assert all(values.count_nonzero() for values in adapter.values.values())
    assert adapter.info["left_out"] == {"text never reaches it": ["model.vision_tower"]}
    peft_file.export_peft(adapter, tmp_path / "peft")
    theirs = stock(tmp_path / "peft", base)
    assert list(peft_names.lora_layers(theirs)) == list(adapter.modules)
    shapes = cost_bases.base_of(params, base_model.outline(base))
    assert (shapes.layers, shapes.hidden, shapes.linear_layers) == (2, 32, 2.0)
