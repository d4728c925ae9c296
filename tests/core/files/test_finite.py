"""NaN and infinity: wherever weights are read, merged, rounded or written, they are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lori_core.adapters import adapter_file, attach
from lori_core.adapters.adapter import Adapter, LayerSpec
from lori_core.adapters.merge_into_base import Update, merge_into_base
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import AdapterError, InputError, ModelError
from lori_core.core.files import finite
from lori_core.core.files.atomic import digest, json_text, sha256_file
from lori_core.core.files.tensor_file import TensorFile
from lori_core.merging.merge import merge
from lori_core.methods import finetuned_model
from lori_core.models import peft_names
from support import peft_folder, random_adapter, refused, tiny

BAD = [float("nan"), float("inf"), float("-inf")]
Q = "model.layers.1.self_attn.q_proj"
GOLDEN = Path(__file__).parents[2] / "golden"


def spoil(file: Path, name: str, value: float) -> None:
    """Put one value into the middle of a tensor of a file."""
    tensors = load_file(file)
    tensors[name].view(-1)[tensors[name].numel() // 2] = value
    save_file(tensors, file, metadata={"format": "pt"})


def spoilt(folder: Path, said: str, name: str, value: float) -> None:
    """Do so in a folder whose JSON has the file's SHA-256, and mend that."""
    file = next(folder.glob("*.safetensors"))
    spoil(file, name, value)
    content = json.loads((folder / said).read_text()) | {"sha256": sha256_file(file)}
    if content.pop("checksum", None):
        content |= {"checksum": digest(content)}
    (folder / said).write_text(json_text(content))


def ours(folder: Path, value: float) -> str:
    adapter_file.save(random_adapter(sparsity="0.9"), folder)
    spoilt(folder, adapter_file.JSON_FILE, f"B.{Q}", value)
    return f"adapter.safetensors: B of {Q}"


def ours_with_a(folder: Path, value: float) -> str:
    peft_folder(folder.with_name("stored"))
    adapter_file.save(peft_file.import_peft(folder.with_name("stored")), folder)
    spoilt(folder, adapter_file.JSON_FILE, f"A.{Q}", value)
    return f"adapter.safetensors: A of {Q}"


def the_first_version(folder: Path, value: float) -> str:
    shutil.copytree(GOLDEN / "adapter-v1-keyed", folder)
    spoilt(folder, adapter_file.JSON_FILE, "values", value)
    return "adapter.safetensors: B of model.layers."


def pefts(folder: Path, value: float) -> str:
    peft_folder(folder)
    key = f"base_model.model.{Q}.lora_B.weight"
    spoil(folder / peft_names.WEIGHTS_FILE, key, value)
    return f"adapter_model.safetensors: {key}"


FOLDERS = [ours, ours_with_a, the_first_version, pefts]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("make", FOLDERS)
@pytest.mark.parametrize("value", BAD)
def test_every_command_refuses_weights_that_are_no_numbers(
    workspace: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path, float], str],
    value: float,
) -> None:
    where = make(workspace / "bad", value)
    adapter_file.save(random_adapter(key="code"), workspace / "good")
    for argv in (
        ["inspect", "bad"],
        ["export", "bad", "x", "--to", "peft"],
        ["export", "bad", "x", "--to", "merged"],
        ["merge", "good", "bad", "-o", "x"],
        ["interference", "good", "bad", "-o", "x"],
        ["evaluate", "bad", "--tasks", "bundled-math", "-o", "x"],
    ):
        line = refused(capsys, *argv)
        assert where in line
        assert "holds NaN" in line if value != value else "holds infinity" in line
    assert not (workspace / "x").exists()


@pytest.mark.parametrize("value", BAD)
def test_what_another_method_trained_is_refused_too(tmp_path: Path, value: float) -> None:
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    model, _, base = tiny("llama")
    tensors = get_peft_model_state_dict(get_peft_model(model, config))
    said = peft_names.config_dict(config)
    finetuned_model.save(finetuned_model.FinetunedModel(base, tensors, said), tmp_path / "ia3")
    key = next(name for name in tensors if Q in name)
    spoilt(tmp_path / "ia3", finetuned_model.JSON_FILE, key, value)
    with pytest.raises(AdapterError, match=rf"adapter_model\.safetensors: {key} holds"):
        finetuned_model.open_model(tmp_path / "ia3")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_one_bad_value_anywhere_is_found(dtype: torch.dtype) -> None:
    for value, said in zip(BAD, ("NaN", "infinity", "infinity"), strict=True):
        for place in (0, 7, 1000):
            tensor = torch.linspace(-1, 1, 1001).to(dtype)
            assert finite.fault(tensor) is None
            tensor[place] = value
            assert finite.fault(tensor) == said
    assert finite.fault(torch.empty(0, dtype=dtype)) is None
    assert finite.fault(torch.full((3,), torch.finfo(dtype).max, dtype=dtype)) is None
    assert finite.fault(torch.ones(3, dtype=torch.uint8)) is None


@pytest.mark.parametrize("weights", ["nan", "1,inf", "-inf,1"])
def test_weights_of_a_merge_are_numbers(
    workspace: Path, capsys: pytest.CaptureFixture[str], weights: str
) -> None:
    for key in ("math", "code"):
        adapter_file.save(random_adapter(key=key), workspace / key)
    argv = ["merge", "math", "code", f"--weights={weights}", "-o", "x"]
    line = refused(capsys, *argv)
    assert f"--weights: {weights!r}; expected" in line
    with pytest.raises(InputError, match="weight nan is not a finite number"):
        merge("concat", [random_adapter()], [float("nan")])


def test_a_merge_that_overflows_is_refused_and_leaves_what_was_there(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("math", "code"):
        adapter = random_adapter(key=key)
        large = {name: values * 1e34 for name, values in adapter.values.items()}
        adapter_file.save(replace(adapter, values=large), workspace / key)
    adapter_file.save(random_adapter(key="math"), workspace / "x")
    before = {path.name: path.read_bytes() for path in (workspace / "x").iterdir()}
    weights = ("--weights", "1e6", "--force")
    line = refused(capsys, "merge", "math", "code", *weights, "-o", "x")
    assert "B.model.layers.0.self_attn.q_proj would hold infinity" in line
    assert {path.name: path.read_bytes() for path in (workspace / "x").iterdir()} == before
    assert sorted(path.name for path in workspace.iterdir()) == ["code", "math", "x"]


def test_an_export_that_overflows_its_precision_is_refused(tmp_path: Path) -> None:
    adapter = stored(dtype=torch.float16, scale=1e30)
    with pytest.raises(AdapterError, match=r"lora_B\.weight would hold infinity"):
        peft_file.export_peft(adapter, tmp_path / "out")
    with pytest.raises(AdapterError, match=r"would hold infinity"):
        peft_file.export_peft(
            replace(adapter, modules=alphas(adapter, 1e25, 2e25)), tmp_path / "out", serving="vllm"
        )
    assert not list(tmp_path.iterdir())


def stored(dtype: torch.dtype, scale: float = 1.0) -> Adapter:
    """Return an adapter whose A and B are kept in a dtype, and whose B is large."""
    adapter = random_adapter(sparsity=None)
    return replace(
        adapter,
        blocks=(),
        stored={name: adapter.A(name) for name in adapter.modules},
        values={name: scale * adapter.values[name] for name in adapter.modules},
        dtype=dtype,
    )


def alphas(adapter: Adapter, *values: float) -> dict[str, LayerSpec]:
    return {
        name: replace(module, lora_alpha=values[number % len(values)])
        for number, (name, module) in enumerate(adapter.modules.items())
    }


@pytest.mark.parametrize("alpha", BAD)
def test_a_scaling_that_is_no_number_is_refused(tmp_path: Path, alpha: float) -> None:
    adapter = random_adapter()
    (name, *_) = adapter.modules
    with pytest.raises(AdapterError, match=rf"module {name}: lora_alpha {alpha} at rank 4"):
        replace(adapter, modules=alphas(adapter, alpha))
    peft_folder(tmp_path / "p")
    path = tmp_path / "p" / peft_names.CONFIG_FILE
    said = json.loads(path.read_text()) | {"lora_alpha": alpha}
    path.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"adapter_config\.json:.*(NaN|Infinity) is no number"):
        peft_file.import_peft(tmp_path / "p")
    path.write_text(json.dumps(said | {"lora_alpha": "ALPHA"}).replace('"ALPHA"', "1e999"))
    with pytest.raises(InputError, match=r"adapter_config\.json:.*1e999 is no number"):
        peft_file.import_peft(tmp_path / "p")
    for wrong, shown in (("16", "'16'"), (True, "True"), (None, "None")):
        path.write_text(json.dumps(said | {"lora_alpha": wrong}))
        with pytest.raises(AdapterError, match=rf"lora_alpha is {shown}, not a finite number"):
            peft_file.import_peft(tmp_path / "p")


def large(modules: dict[str, tuple[int, int]], value: float) -> Callable[[str], Update]:
    def update(name: str) -> Update:
        d_in, d_out = modules[name]
        B = torch.zeros(d_out, 2)
        B[d_out // 2, 0] = value
        return Update(torch.ones(2, d_in), B, 1.0)

    return update


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.float16, 7e4), (torch.float32, 3.4e38), (torch.bfloat16, 3.4e38)],
)
def test_baking_beyond_the_bases_precision_is_refused(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    model, _, _ = tiny("llama")
    model.to(dtype).save_pretrained(tmp_path / "base")
    modules = {Q: (64, 64)}
    with pytest.raises(AdapterError, match=rf"{Q}\.weight would hold infinity") as refusal:
        update = large(modules, value)
        merge_into_base(
            tmp_path / "base", tmp_path / "out", modules, lambda n: update(n)._replace(scaling=2)
        )
    assert str(dtype).removeprefix("torch.") in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("value", BAD)
def test_baking_into_a_weight_that_holds_no_numbers_is_refused(
    tmp_path: Path, value: float
) -> None:
    model, _, _ = tiny("llama")
    model.save_pretrained(tmp_path / "base")
    spoil(tmp_path / "base" / "model.safetensors", f"{Q}.weight", value)
    modules = {Q: (64, 64)}
    with pytest.raises(ModelError, match=rf"model\.safetensors: {Q}\.weight holds"):
        merge_into_base(tmp_path / "base", tmp_path / "out", modules, large(modules, 0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_an_adapter_that_overflows_the_models_precision_is_not_put_on() -> None:
    adapter = stored(torch.float32, scale=1e6)
    attach.apply_adapter(tiny("llama")[0], adapter)
    model = tiny("llama")[0].half()
    with pytest.raises(AdapterError, match=r"B of .* would hold infinity in float16"):
        attach.apply_adapter(model, adapter)


def test_a_large_file_is_checked_one_tensor_at_a_time(tmp_path: Path) -> None:
    held: list[int] = []
    file = tmp_path / "x.safetensors"
    save_file({f"t{n}": torch.ones(10) for n in range(5)}, file)

    class Watched(TensorFile):
        def __getitem__(self, name: str) -> Any:
            held.append(1)
            return super().__getitem__(name)

    Watched(file).check_finite()
    assert len(held) == 5
