"""Which base model the commands put adapters on, and which adapters they take for it."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lori_cli import evaluation, main
from lori_core.adapters import adapter_file, attach, base_choice, inspection
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.peft_format import peft_file
from lori_core.config import ModelSection
from lori_core.core.errors import AdapterError
from lori_core.models.base_identity import BaseIdentity
from support import peft_folder, random_adapter, refused, tiny

ROOT = Path(__file__).parents[2]
TASK = ["--tasks", "bundled-nlu", "--limit", "1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two bases of one shape, `base` and `other`, and PEFT adapters that name them, or none."""
    for name, added in (("base", 0.0), ("other", 0.5)):
        shutil.copytree(tiny("llama")[1], tmp_path / name)
        (tmp_path / name / "lori_model.json").unlink()
        weights = tmp_path / name / "model.safetensors"
        moved = {key: tensor + added for key, tensor in load_file(weights).items()}
        save_file(moved, weights, {"format": "pt"})
    peft_folder(tmp_path / "p")
    for name, base in (
        ("names-base", str(tmp_path / "base")),
        ("names-other", str(tmp_path / "other")),
        ("names-gone", "somebody/else"),
        ("null", None),
        ("null-too", None),
    ):
        shutil.copytree(tmp_path / "p", tmp_path / name)
        said(tmp_path / name, base_model_name_or_path=base)
    ours = random_adapter()
    adapter_file.save(ours, tmp_path / "ours")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rescued(*argv: str) -> None:
    """A refused command is accepted when the base is named."""
    assert main([*argv, "--base", "base/"]) == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["names-base", "names-other"], "names-other: names the base '"),
        (["names-base", "null"], "null: does not say which base model it is for"),
        (["null"], "null: does not say which base model it is for"),
        (["ours", "names-base"], "names-base: names the base '"),
    ],
)
def test_evaluate_takes_no_adapter_for_another_base(
    here: Path, names: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refused(capsys, "evaluate", *names, *TASK)
    assert message in found
    assert "--base" in found
    assert not Path("evaluation").exists()


def test_evaluate_scores_what_base_names(here: Path) -> None:
    rescued("evaluate", "names-base", "names-gone", "null", *TASK)
    scores = json.loads(Path("evaluation/results.json").read_text())["scores"]
    assert list(scores) == ["base", "names-base", "names-gone", "null"]
    one, two = (
        Path("evaluation", name, "bundled-nlu.jsonl").read_text() for name in list(scores)[1:3]
    )
    assert one == two


def test_base_does_not_override_a_recorded_identity(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [
        ["evaluate", "ours", *TASK],
        ["merge", "ours", "null", "-o", "x"],
        ["interference", "ours", "null", "-o", "x"],
        ["export", "ours", "x", "--to", "merged"],
    ]
    for command in commands:
        assert (
            "ours: made for the base 'random:llama', whose weights differ from 'other'"
            in refused(capsys, *command, "--base", "other")
        )
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "command",
    [["merge", "ours", "null"], ["interference", "ours", "null"], ["interference", "null"]],
)
def test_the_base_that_is_read_is_never_written(
    here: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path("base").iterdir())
    for out in ("base", "base/out"):
        for more in ([], ["--force"]):
            found = refused(capsys, *command, "--base", "base", "-o", out, *more)
            assert f"{out}: is, or lies in, the input base; name another folder" in found
            assert sorted(Path("base").iterdir()) == before


@pytest.mark.parametrize("command", ["merge", "interference"])
def test_adapters_are_combined_only_if_their_bases_are_the_same(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in (["names-base", "names-other"], ["names-base", "null"], ["ours", "null"]):
        found = refused(capsys, command, *names, "-o", "x")
        assert f"{names[0]} and {names[1]} may be adapters of different base models" in found
        assert "--base" in found
        assert not Path("x").exists()
    shutil.copytree("names-base", "named-alike")
    said(Path("named-alike"), base_model_name_or_path=f"{here}/other/../base/")
    assert main([command, "names-base", "named-alike", "-o", "x"]) == 0
    assert capsys.readouterr().err == ""
    rescued(command, "names-base", "names-other", "ours", "-o", "y")


def test_a_merge_records_the_parents_without_a_recorded_base(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "null", "null-too", "-o", "x"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lori: null, null-too: no adapter names its base model, so it was not")
    merged = adapter_file.load(Path("x"))
    assert (merged.base.name, merged.base.known) == ("", False)
    assert merged.info["base_not_proved"] == [1, 2]
    assert main(["export", "x", "peft", "--to", "peft"]) == 0
    config = json.loads(Path("peft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    inspection.show(Path("x"))
    assert "base         not named (its content is not known)" in capsys.readouterr().out
    assert main(["merge", "null", "ours", "-o", "y", "--base", "base"]) == 0
    merged = adapter_file.load(Path("y"))
    assert merged.base.content() == tiny("llama")[2].content()
    assert merged.info["base_not_proved"] == [1]
    assert main(["merge", "y", "ours", "-o", "z"]) == 0
    assert adapter_file.load(Path("z")).info["base_not_proved"] == [1]
    assert main(["merge", "ours", "-o", "w"]) == 0
    assert "base_not_proved" not in adapter_file.load(Path("w")).info


def test_a_model_is_not_baked_into_the_current_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("base")  # a model's folder, where an empty name would lead
    argv = ["export", "../null", "../x", "--to", "merged"]
    assert "null: does not say which base model it is for" in refused(capsys, *argv)
    assert "--base: model.name" not in refused(capsys, *argv, "--base", "")
    assert main([*argv, "--base", "../other"]) == 0


def test_baking_an_adapter_that_only_names_its_base_follows_the_base(here: Path) -> None:
    said(Path("names-base"), fan_in_fan_out=True)  # which PEFT corrects for linear layers
    assert main(["export", "names-base", "x", "--to", "merged"]) == 0
    ids = torch.arange(12).view(1, 12)
    worn = attach.apply_adapter(tiny("llama")[0], peft_file.open_adapter(Path("names-base"))).eval()
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained("x").eval()(ids).logits
        assert torch.allclose(found, worn(ids).logits, atol=1e-4)
    record = json.loads(Path("x/lori_export.json").read_text())
    assert record["base"]["name"] == str(here / "base")
    assert "model.safetensors" in record["files"]


@pytest.mark.parametrize(
    "argv",
    [
        ["merge", "wide", "ours", "-o", "x"],
        ["interference", "wide", "ours"],
        ["export", "wide", "x", "--to", "merged"],
        ["evaluate", "wide", *TASK],
    ],
)
def test_modules_that_do_not_fit_the_base_are_named(
    here: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    peft_folder(Path("wide"), r=2, target_modules=["q_proj"])
    weights = load_file("wide/adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    save_file(weights | {name: torch.zeros(2, 65)}, "wide/adapter_model.safetensors")
    said(Path("wide"), base_model_name_or_path=None)
    found = refused(capsys, *argv, "--base", "base")
    assert "wide: module model.layers.1.self_attn.q_proj: the adapter's is 65 to 64" in found
    assert not Path("x").exists()


def test_a_missing_base_is_named_with_the_remedy(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("base")
    found = refused(capsys, "export", "names-base", "x", "--to", "merged")
    assert found.startswith(f"error: the base model '{here}/base': ")
    assert "name the base with --base (a hub model" in found
    found = refused(capsys, "export", "ours", "x", "--to", "merged", "--base", "no/where")
    assert found.startswith("error: --base: a hub model needs its commit")


def params_of(adapter: str, name: str, base: str | None = None) -> Any:
    """Return what `lori evaluate` runs on in a workspace whose params.yaml names a model."""
    values = yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text())
    values["model"] = {"name_or_path": name, "dtype": "float16", "quantization": "8bit"}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    args = argparse.Namespace(
        profile=None, set=[], base=base, protocols=None, likelihood=None, samples=None,
        batch_size=None, unsafe_code=None, harness=None,
    )  # fmt: skip
    params, chosen = evaluation._params(args, {"a": peft_file.open_adapter(Path(adapter))})
    evaluation._warn_of_other_base(args, chosen)
    return params.model


@pytest.mark.parametrize("name", ["base", "base/", "./other/../base", "copy", "link"])
def test_params_yaml_says_how_its_own_base_is_loaded(here: Path, name: str) -> None:
    shutil.copytree("base", "copy")
    Path("link").symlink_to("base")
    for adapter in ["ours"] + ["names-base"] * (name != "copy"):
        found = params_of(adapter, name)
        assert (found.dtype, found.quantization) == ("float16", "8bit")
    found = params_of("null", name, base=f"{here}/base/")
    assert (found.dtype, found.quantization) == ("float16", "8bit")


def test_another_base_is_not_loaded_as_params_yaml_says(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for adapter, base, name in (("ours", None, "random:llama"), ("null", "base", "base")):
        found = params_of(adapter, "other", base)
        assert (found.name_or_path, found.dtype, found.quantization) == (name, "bfloat16", None)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lori: params.yaml has another base model (other): its dtype and")


def test_the_option_names_folders_packages_and_commits_of_the_hub(here: Path) -> None:
    commit = "a" * 40
    known = random_adapter()
    named = {"a": Adapter(BaseIdentity("x/y", commit, "", ""), known.modules, (), None, {})}

    def parsed(word: str) -> tuple[str, str | None]:
        section = base_choice.from_option(word, named)
        return section.name_or_path, section.revision

    assert parsed("base/") == ("base/", None)
    assert parsed("random:llama") == ("random:llama", None)
    assert parsed(f"o/n@{commit}") == ("o/n", commit)
    assert parsed("X/Y") == ("X/Y", commit)
    assert parsed("other/name") == ("other/name", None)
    Path("a/b").mkdir(parents=True)
    assert parsed("a/b@1") == ("a/b@1", None)
    assert parsed("/a/b@1") == ("/a/b@1", None)


def test_a_model_stands_for_a_base_by_name_or_content(here: Path) -> None:
    known, copy = tiny("llama")[2], ModelSection(name_or_path="base")
    assert base_choice.stands_for(copy, known)
    assert base_choice.stands_for(ModelSection(name_or_path="random:llama"), known)
    assert not base_choice.stands_for(ModelSection(name_or_path="other"), known)
    assert not base_choice.stands_for(ModelSection(name_or_path="gone/model"), known)
    assert not base_choice.stands_for(copy, BaseIdentity("elsewhere", "", "", ""))
    assert base_choice.stands_for(copy, BaseIdentity(f"{here}/base/", "", "", ""))


def test_adapters_without_a_base_have_none(here: Path) -> None:
    with pytest.raises(AdapterError, match="null: does not say"):
        base_choice.choose(None, {"null": peft_file.open_adapter(Path("null"))})
