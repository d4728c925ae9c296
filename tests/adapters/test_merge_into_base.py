import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lori_core.adapters import merge_into_base as merging
from lori_core.adapters.merge_into_base import Merged, Update, merge_into_base
from lori_core.core.errors import AdapterError, InputError, ModelError
from lori_core.models import peft_names
from support import TARGETS, tiny

RANK = 4
SCALING = 1.5
Modules = Mapping[str, tuple[int, int]]


def updates_of(modules: Modules, density: float = 0.1) -> dict[str, Update]:
    """Return a random update of each module, B of which has so many values that are not zero."""
    generator = torch.Generator().manual_seed(7)
    found = {}
    for name, (d_in, d_out) in modules.items():
        A = torch.randn(RANK, d_in, generator=generator)
        B = torch.randn(d_out, RANK, generator=generator) / 10
        kept = torch.rand(d_out, RANK, generator=generator) < density
        found[name] = Update(A, B * kept, SCALING)
    return found


def adapted(model: Any, updates: Mapping[str, Update], turned: bool) -> Any:
    """Return PEFT's model with the updates."""
    config = LoraConfig(
        r=RANK,
        lora_alpha=SCALING * RANK,
        target_modules=list(updates),
        fan_in_fan_out=turned,
    )
    model = get_peft_model(model, config)
    for name, layer in peft_names.lora_layers(model).items():
        layer.lora_A["default"].weight.data = updates[name].A
        layer.lora_B["default"].weight.data = updates[name].B
    return model


def logits(model: Any) -> Tensor:
    ids = torch.randint(0, 250, (2, 24), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found


def header(path: Path) -> bytes:
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))


def saved(folder: Path, dtype: torch.dtype, **options: Any) -> tuple[Path, Modules]:
    """Write a tiny llama of a dtype; return its folder and modules."""
    model, _, _ = tiny("llama")
    model.to(dtype).save_pretrained(folder, **options)
    return folder, peft_names.target_shapes(model, TARGETS["llama"])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved(tmp_path / "base", torch.float32)[0]


@pytest.fixture
def modules() -> Modules:
    return {"model.layers.0.mlp.up_proj": (64, 128), "model.layers.1.self_attn.k_proj": (64, 32)}


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_a_baked_model_computes_what_the_adapted_one_does(
    architecture: str, density: float, tmp_path: Path
) -> None:
    model, folder, _ = tiny(architecture)
    modules = peft_names.target_shapes(model, TARGETS[architecture])
    turned = peft_names.fan_in_fan_out(model, modules)
    updates = updates_of(modules, density)
    before = logits(model)
    done = merge_into_base(folder, tmp_path / "out", modules, updates.__getitem__)
    assert done == Merged(len(modules), (folder / "model.safetensors").stat().st_size)
    expected = logits(adapted(model, updates, turned))
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32))
    assert (expected - before).abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def steps_apart(first: Tensor, second: Tensor) -> Tensor:
    """Return how many numbers of a 16-bit float dtype lie between two of equal sign."""
    return (first.view(torch.int16).int() - second.view(torch.int16).int()).abs()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_each_weight_is_the_sum_rounded_once(
    dtype: torch.dtype, density: float, tmp_path: Path
) -> None:
    base, modules = saved(tmp_path / "base", dtype)
    updates = updates_of(modules, density)
    merge_into_base(base, tmp_path / "out", modules, updates.__getitem__)
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    equal, total = 0, 0
    for name, (A, B, scaling) in updates.items():
        weight = before[f"{name}.weight"].double()
        exact = weight + scaling * B.double() @ A.double()
        found = after[f"{name}.weight"]
        steps = steps_apart(found, exact.to(dtype))
        # Where terms cancel, float32's own error is more than a step of so small a number.
        large = exact.abs() > 1e-3
        assert steps[large].max() <= 1
        torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-6)
        equal, total = equal + int((steps == 0).sum()), total + steps.numel()
    assert equal / total > 0.999


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_blocks_meet_without_a_seam(
    density: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, modules = saved(tmp_path / "base", torch.bfloat16)
    updates = updates_of(modules, density)
    merge_into_base(base, tmp_path / "whole", modules, updates.__getitem__)
    # 7 rows of 64 in a block, which divides no tensor, and runs of an odd length.
    monkeypatch.setattr(merging, "_NUMBERS", 7 * 64 + 5)
    monkeypatch.setattr(merging, "_RUN", 1001)
    monkeypatch.setattr(merging, "_AHEAD", 2)
    merge_into_base(base, tmp_path / "parts", modules, updates.__getitem__)
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    parts = load_file(tmp_path / "parts" / "model.safetensors")
    for name, tensor in whole.items():
        # Products of other sizes may add in another order.
        torch.testing.assert_close(parts[name], tensor, rtol=2**-7, atol=1e-6)
        if name.removesuffix(".weight") not in modules:
            assert torch.equal(parts[name], tensor)


def test_the_rest_is_the_base_byte_for_byte(base: Path, modules: Modules, tmp_path: Path) -> None:
    merge_into_base(base, tmp_path / "out", modules, updates_of(modules).__getitem__)
    assert header(base / "model.safetensors") == header(tmp_path / "out" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in modules}
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()


def test_an_update_of_zero_changes_no_byte(base: Path, modules: Modules, tmp_path: Path) -> None:
    zeros = {
        name: Update(torch.ones(RANK, d_in), torch.zeros(d_out, RANK), 1.0)
        for name, (d_in, d_out) in modules.items()
    }
    merge_into_base(base, tmp_path / "out", modules, zeros.__getitem__)
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (base / weights).read_bytes()


def test_shards_stay_as_they_are(tmp_path: Path) -> None:
    base, modules = saved(tmp_path / "base", torch.bfloat16, max_shard_size="60KB")
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(shards) > 2
    updates = updates_of(modules)
    done = merge_into_base(base, tmp_path / "out", modules, updates.__getitem__)
    assert done == Merged(len(modules), sum((base / name).stat().st_size for name in shards))
    index = "model.safetensors.index.json"
    assert (tmp_path / "out" / index).read_bytes() == (base / index).read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == shards
    for name in shards:
        assert header(base / name) == header(tmp_path / "out" / name)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).state_dict()
    for name, tensor in found.state_dict().items():
        changed = name.removesuffix(".weight") in modules
        assert torch.equal(tensor, before[name]) != changed


def test_only_the_other_files_that_belong_to_the_model_are_copied(
    base: Path, modules: Modules, tmp_path: Path
) -> None:
    copied = ["tokenizer.json", "chat_template.jinja", "templates/tool.jinja", "LICENSE", "own.py"]
    left = ["pytorch_model.bin", "original/consolidated.00.pth", "optimizer.pt", "x.safetensors"]
    left += [".git/config", ".cache/huggingface/a.json", "__pycache__/a.pyc", ".gitattributes"]
    left += ["pytorch_model.bin.index.json", "model.safetensors.index.json", "lori_model.json"]
    for name in [*copied, *left]:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(f"this is {name}")
    merge_into_base(base, tmp_path / "out", modules, updates_of(modules).__getitem__)
    found = {
        str(path.relative_to(tmp_path / "out"))
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    own = {"model.safetensors", "config.json", "generation_config.json"}
    assert found == {*copied, *own}
    assert (tmp_path / "out" / "templates" / "tool.jinja").read_text() == (
        "this is templates/tool.jinja"
    )


def test_links_become_the_files_they_mean(base: Path, modules: Modules, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, path in enumerate(sorted(base.iterdir())):
        blob = path.rename(blobs / str(number))
        blob.chmod(0o444)
        (snapshot / path.name).symlink_to(Path("..", "blobs", blob.name))
    (snapshot / "elsewhere").symlink_to(tmp_path)  # a link to a folder is not followed
    merge_into_base(snapshot, tmp_path / "out", modules, updates_of(modules).__getitem__)
    names = {path.name for path in snapshot.iterdir()} - {"elsewhere"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    (snapshot / "vocab.json").symlink_to("nowhere")
    with pytest.raises(ModelError, match=r"vocab\.json: a link to a file that is missing"):
        merge_into_base(snapshot, tmp_path / "again", modules, updates_of(modules).__getitem__)
    assert not (tmp_path / "again").exists()


def renamed(path: Path, rename: Mapping[str, str]) -> None:
    """Replace the beginning of tensors' names in a file."""
    tensors = {}
    for name, tensor in load_file(path).items():
        old = next((old for old in rename if name.startswith(old)), "")
        tensors[rename.get(old, "") + name.removeprefix(old)] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def test_the_weights_of_a_bare_model_are_found(
    base: Path, modules: Modules, tmp_path: Path
) -> None:
    renamed(base / "model.safetensors", {"model.": ""})
    updates = updates_of(modules)
    merge_into_base(base, tmp_path / "out", modules, updates.__getitem__)
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name.removeprefix('model.')}.weight" for name in modules}


def test_weights_under_names_that_transformers_would_not_read_are_refused(
    base: Path, modules: Modules
) -> None:
    renamed(base / "model.safetensors", {"model.": "language_model.model."})
    refused(AdapterError, r"no tensor model\.layers\.0\.mlp\.up_proj\.weight", base, modules)


def test_each_update_is_asked_for_once_in_this_thread(
    base: Path, modules: Modules, tmp_path: Path
) -> None:
    updates = updates_of(modules)
    asked = []

    def update(name: str) -> Update:
        assert threading.current_thread() is threading.main_thread()
        asked.append(name)
        return updates[name]

    threads = torch.get_num_threads()
    merge_into_base(base, tmp_path / "out", modules, update)
    with safe_open(base / "model.safetensors", "pt") as file:
        names = sorted(modules, key=lambda name: list(file.offset_keys()).index(f"{name}.weight"))
    assert asked == names
    assert torch.get_num_threads() == threads


def test_a_failure_leaves_nothing(base: Path, modules: Modules, tmp_path: Path) -> None:
    first, second = updates_of(modules).values()

    def fail(name: str) -> Update:
        raise RuntimeError("no")

    threads = torch.get_num_threads()
    (tmp_path / "out").mkdir()
    for update in (fail, lambda name: first._replace(B=first.B[1:])):
        with pytest.raises((RuntimeError, AdapterError)):
            merge_into_base(base, tmp_path / "out", modules, update)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]
        assert not list((tmp_path / "out").iterdir())
    assert torch.get_num_threads() == threads
    with pytest.raises(AdapterError, match=r"A is \[4, 64\] and B is \[32, 4\]; they do not make"):
        merge_into_base(
            base, tmp_path / "out", {"model.layers.0.mlp.up_proj": (64, 128)}, lambda _: second
        )


def test_a_full_disk_leaves_nothing(
    base: Path, modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        merge_into_base(base, tmp_path / "out", modules, updates_of(modules).__getitem__)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_no_thread_writes_after_a_failure_closed_the_file(
    base: Path, modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = updates = updates_of(modules)
    write, closed = os.pwrite, []

    def slow(file: int, data: memoryview, position: int) -> int:
        time.sleep(0.005)
        try:
            return write(file, data, position)
        except OSError:
            closed.append(position)
            raise

    def update(name: str) -> Update:
        if name != first:
            raise RuntimeError("no")
        return updates[name]

    monkeypatch.setattr(os, "pwrite", slow)
    monkeypatch.setattr(merging, "_RUN", 4000)
    with pytest.raises(RuntimeError, match="no"):
        merge_into_base(base, tmp_path / "out", modules, update)
    assert not closed


def test_a_killed_bake_is_not_taken_for_a_model(
    base: Path, modules: Modules, tmp_path: Path
) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from lori_core.adapters.merge_into_base import merge_into_base
        def update(name):
            os.kill(os.getpid(), signal.SIGKILL)
        base, out = Path({str(base)!r}), Path({str(tmp_path / "out")!r})
        merge_into_base(base, out, {dict(modules)!r}, update)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    merge_into_base(base, tmp_path / "out", modules, updates_of(modules).__getitem__)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]


def refused(
    error: type[Exception], match: str, base: Path, modules: Modules, name: str = "out"
) -> None:
    """Bake, and expect an error before anything is written or an update is asked for."""
    before = sorted(base.parent.rglob("*"))
    with pytest.raises(error, match=match) as caught:
        merge_into_base(
            base, base.parent / name, modules, lambda name: pytest.fail("asked for an update")
        )
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(base.parent.rglob("*")) == before


def test_an_out_that_is_not_free_is_refused(base: Path, modules: Modules) -> None:
    (base.parent / "full").mkdir()
    (base.parent / "full" / "notes.txt").write_text("mine")
    refused(InputError, "full: exists and is not an empty folder", base, modules, "full")
    (base.parent / "file").write_text("mine")
    refused(InputError, "file: exists and is not an empty folder", base, modules, "file")
    refused(InputError, "base: exists", base, modules, "base")
    refused(InputError, "lies inside the base", base, modules, "base/baked")


def test_modules_that_do_not_fit_are_refused(base: Path, modules: Modules) -> None:
    up = "model.layers.0.mlp.up_proj"
    missing = {**modules, "model.layers.9.mlp.up_proj": (64, 128)}
    refused(AdapterError, r"no tensor model\.layers\.9\.mlp\.up_proj\.weight", base, missing)
    refused(
        AdapterError,
        r"up_proj\.weight: \[128, 64\] in the base, \[128, 65\] in the adapter",
        base,
        {up: (65, 128)},
    )
    bare = up.removeprefix("model.")
    same = {up: (64, 128), bare: (64, 128)}
    refused(AdapterError, f"{up} and {bare} share the weight {up}.weight", base, same)
    other = {f"other.{up}": (64, 128)}
    refused(AdapterError, rf"no tensor other\.{up}\.weight .* that a LlamaForCausalLM", base, other)
    refused(AdapterError, "embed_tokens is no linear layer in the base", base, EMBEDDING)
    two = load_file(base / "model.safetensors")
    save_file(two | {f"{bare}.weight": two[f"{up}.weight"].clone()}, base / "model.safetensors")
    refused(AdapterError, rf"up_proj\.weight may be any of {bare}\.weight, {up}", base, modules)


def test_a_weight_that_the_embedding_shares_is_refused(base: Path) -> None:
    head = {"lm_head": (64, 260)}
    refused(AdapterError, "tie_word_embeddings: lm_head shares its weight", base, head)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    refused(AdapterError, r"no tensor lm_head\.weight", base, head)
    (base / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    refused(ModelError, "base/config.json: cannot be read: .*unheard-of", base, head)


def test_quantised_and_damaged_bases_are_refused(base: Path, modules: Modules) -> None:
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    up = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, up: tensors[up].to(torch.int8)}, weights)
    refused(
        ModelError, f"{up}: stored as I8; a weight must be one of F32, F16, BF16", base, modules
    )
    save_file(tensors, weights)
    whole = weights.read_bytes()
    weights.write_bytes(
        whole.replace(b'"dtype":"F32","shape":[128,64]', b'"dtype":"F16","shape":[128,64]', 1)
    )
    refused(ModelError, "damaged", base, dict.fromkeys(MLP, (64, 128)))
    weights.write_bytes(whole[:-1])
    refused(ModelError, "cut off", base, modules)
    weights.unlink()
    refused(ModelError, "no weights here", base, modules)


def without(base: Path, name: str) -> None:
    tensors = load_file(base / "model.safetensors")
    del tensors[name]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "name",
    [
        "model.norm.weight",
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.mlp.down_proj.weight",
    ],
)
def test_a_base_without_one_of_its_tensors_is_refused(
    base: Path, modules: Modules, name: str
) -> None:
    without(base, name)
    refused(ModelError, r"base: its weights lack \S+ \(", base, modules)


def test_a_base_without_its_own_head_is_refused(base: Path, modules: Modules) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    refused(ModelError, r"base: its weights lack lm_head\.weight \(1 tensors", base, modules)


def test_a_shard_that_no_index_names_is_missing(tmp_path: Path) -> None:
    base, every = saved(tmp_path / "base", torch.float32, max_shard_size="100KB")
    index = base / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    gone = said["weight_map"].pop("model.norm.weight")
    kept = {name: file for name, file in said["weight_map"].items() if file != gone}
    index.write_text(json.dumps({**said, "weight_map": kept}))
    modules = {name: size for name, size in every.items() if f"{name}.weight" in kept}
    refused(ModelError, r"base: its weights lack model\.\S+ \(", base, modules)


EMBEDDING = {"model.embed_tokens": (64, 260)}
MLP = [f"model.layers.{n}.mlp.{name}" for n in range(2) for name in ("gate_proj", "up_proj")]


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ({"weight_map": {"a": "../x.safetensors"}}, "is not the name of a file beside it"),
        ({"weight_map": {"a": "gone.safetensors"}}, r"gone\.safetensors: cannot be read"),
        ({"weight_map": ["a"]}, "damaged: it has no weight_map"),
        ([], "damaged: it has no weight_map"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(
    index: object, match: str, base: Path, modules: Modules
) -> None:
    (base / "model.safetensors").rename(base / "other.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(ModelError, match, base, modules)
