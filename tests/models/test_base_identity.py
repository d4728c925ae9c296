"""What makes two base models one: their content, whatever they are called and lie beside."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lori_core.adapters import adapter_file
from lori_core.config import ModelSection
from lori_core.core.errors import AdapterError, InputError, ModelError
from lori_core.models import base_model
from lori_core.models.base_identity import BaseIdentity, Match, match, same_name
from support import random_adapter, tiny

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    shutil.copytree(tiny("llama")[1], folder)
    (folder / "lori_model.json").unlink()
    return folder


def of(folder: Path | str) -> BaseIdentity:
    section = ModelSection(name_or_path=str(folder))
    return base_model.identity(section, base_model.prepare(section))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(folder: Path, size: str = "60KB") -> None:
    """Write the weights of a model's folder in several files."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size=size)


def test_where_it_lies_and_how_it_is_written_do_not_matter(base: Path, tmp_path: Path) -> None:
    before = of(base)
    assert match(of(f"{base}/"), before) is Match.PROVED
    (tmp_path / "link").symlink_to(base)
    assert match(of(tmp_path / "link"), before) is Match.PROVED
    base.rename(tmp_path / "moved")
    assert match(of(tmp_path / "moved"), before) is Match.PROVED


def test_pytorch_is_not_imported(base: Path) -> None:
    """A rerun with nothing to do would spend most of its time on that import."""
    code = (
        "import sys; from pathlib import Path; from lori_core.models.base_identity import identity;"
        "print(identity('x', None, Path(sys.argv[1])).tensors, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(base)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"{of(base).tensors} False\n"


def test_what_transformers_does_not_load_does_not_matter(base: Path) -> None:
    before = of(base)
    tensors = {"other": torch.zeros(3)}
    (base / "original").mkdir()
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "original/a.safetensors"):
        save_file(tensors, base / name)
    (base / "broken.safetensors").symlink_to(base / "gone")
    (base / INDEX).write_text("{}")  # there is the one file, so the index is not read
    assert match(of(base), before) is Match.PROVED


def test_how_weights_are_split_and_linked_does_not_matter(base: Path, tmp_path: Path) -> None:
    before = of(base)
    shard(base)
    assert len(list(base.glob("*.safetensors"))) > 3
    after = of(base)
    assert (after.tensors, after.settings) == (before.tensors, before.settings)
    blobs = tmp_path / "blobs"  # as in the hub's cache
    blobs.mkdir()
    for number, path in enumerate(sorted(base.glob("*.safetensors"))):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert of(base).tensors == before.tensors


def test_keys_that_decide_nothing_do_not_matter(base: Path) -> None:
    before = of(base)
    change_config(base, transformers_version="0.0.1", use_cache=False, _name_or_path="x")
    change_config(base, dtype="float16", torch_dtype="float16", _commit_hash="0")
    assert match(of(base), before) is Match.PROVED
    change_config(base, text_config={"rope_theta": 1.0, "dtype": "float16"})
    one = of(base)
    change_config(base, text_config={"dtype": "float32", "rope_theta": 1.0})
    assert match(of(base), one) is Match.PROVED
    change_config(base, text_config={"rope_theta": 2.0})
    assert match(of(base), one) is Match.DIFFERENT


@pytest.mark.parametrize(
    ("key", "value"), [("rope_theta", 7.5), ("architectures", ["X"]), ("never_heard_of", 1)]
)
def test_any_other_key_decides(base: Path, key: str, value: object) -> None:
    before = of(base)
    change_config(base, **{key: value})
    assert match(of(base), before) is Match.DIFFERENT


def test_any_tensor_decides(base: Path) -> None:
    before = of(base)
    whole = load_file(base / WEIGHTS)
    for name, tensor in whole.items():
        save_file(whole | {name: tensor + 1}, base / WEIGHTS)
        assert match(of(base), before) is Match.DIFFERENT, name
    save_file({name: t.to(torch.bfloat16) for name, t in whole.items()}, base / WEIGHTS)
    assert match(of(base), before) is Match.DIFFERENT
    save_file(whole, base / WEIGHTS, metadata={"format": "pt", "by": "somebody"})
    assert match(of(base), before) is Match.PROVED


def test_a_named_weights_file_is_the_one_that_counts(base: Path) -> None:
    before = of(base)
    whole = load_file(base / WEIGHTS)
    save_file({n: t + 1 for n, t in whole.items()}, base / "own.safetensors", {"format": "pt"})
    change_config(base, transformers_weights="own.safetensors")
    section = ModelSection(name_or_path=str(base), dtype="float32")
    loaded = base_model.load(section, base_model.prepare(section)).state_dict()
    assert all(torch.equal(loaded[name], tensor + 1) for name, tensor in whole.items())
    assert of(base).tensors != before.tensors


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "index.json:1: not valid JSON"),
        ("[]", "damaged: it has no weight_map"),
        ('{"weight_map": {}, "metadata": {}}', "damaged: it has no files"),
        ('{"weight_map": {"a": "own.safetensors"}}', "damaged: it has no metadata"),
        ('{"weight_map": {"a": "gone.safetensors"}, "metadata": {}}', "gone.safetensors: cannot"),
        ('{"weight_map": {"a": "../own.safetensors"}, "metadata": {}}', "not the name of a file"),
    ],
)
def test_a_damaged_index_is_refused(base: Path, index: str, message: str) -> None:
    (base / WEIGHTS).rename(base / "own.safetensors")
    (base / INDEX).write_text(index)
    with pytest.raises(InputError, match=message) as caught:
        of(base)
    assert len(str(caught.value).splitlines()) == 1


def test_a_base_that_transformers_would_complete_at_random_is_refused(base: Path) -> None:
    shard(base)
    index = json.loads((base / INDEX).read_text())
    first, *_ = sorted(set(index["weight_map"].values()))
    index["weight_map"] = {n: f for n, f in index["weight_map"].items() if f != first}
    (base / INDEX).write_text(json.dumps(index))
    section = ModelSection(name_or_path=str(base), dtype="float32")
    with pytest.raises(ModelError, match=r"its weights lack .* at random"):
        base_model.load(section, base_model.prepare(section))


def test_a_base_with_an_adapter_in_it_is_refused(base: Path) -> None:
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="an adapter beside the model's weights"):
        of(base)


def test_no_name_is_no_base() -> None:
    with pytest.raises(InputError, match=r"model\.name_or_path: is empty"):
        base_model.prepare(ModelSection(name_or_path=" "))


def test_adapters_of_the_first_version_know_their_base() -> None:
    golden = adapter_file.load(Path(__file__).parents[1] / "golden" / "adapter-v1-keyed")
    here = tiny("llama")[2]
    assert (golden.base.settings, golden.base.tensors) == ("", "")
    first = BaseIdentity("elsewhere", "", here.config, here.weights)
    assert match(first, here) is Match.PROVED
    assert match(replace(first, weights="other"), here) is Match.DIFFERENT
    assert first.as_dict().keys() == {"name", "revision", "config", "weights"}


def test_one_model_has_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("m")
    monkeypatch.chdir(tmp_path)

    def named(name: str, revision: str = "") -> BaseIdentity:
        return BaseIdentity(name, revision, "", "")

    here = ["m", "m/", "./m", f"{tmp_path}/x/../m", "link"]
    assert all(same_name(named(a), named(b)) for a in here for b in here)
    assert not same_name(named("m"), named(str(tmp_path)))
    assert same_name(named("/not/there/"), named("/not/there"))
    assert same_name(named("Meta/Llama"), named("meta/llama"))
    assert same_name(named("meta/llama", "main"), named("meta/llama", "a" * 40))
    assert not same_name(named("meta/llama", "b" * 40), named("meta/llama", "a" * 40))
    assert not same_name(named("meta/llama"), named("meta/llama2"))
    assert same_name(named("random:llama"), named("random:llama"))
    assert not same_name(named("random:llama"), named("random:gpt2"))
    assert not same_name(named(""), named(""))
    assert match(named(""), named("")) is Match.NAMELESS
    assert match(named(""), named("m")) is Match.UNPROVED
    assert match(named("m"), named("link")) is Match.NAMED


def test_what_says_no_base_is_refused(tmp_path: Path) -> None:
    good = random_adapter().base.as_dict()
    assert BaseIdentity.of(good, "here").as_dict() == good
    for bad in ([], {"name": "x"}, good | {"config": 1}, good | {"later": "x"}):
        with pytest.raises(AdapterError, match=r"^here: "):
            BaseIdentity.of(bad, "here")
