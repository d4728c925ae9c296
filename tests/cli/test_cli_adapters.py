"""The commands on adapters' folders: what they write, and what they refuse."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lori_cli import main
from lori_cli.given import names_of
from lori_core.adapters import adapter_file, attach
from lori_core.adapters.peft_format import peft_file
from lori_core.config import ModelSection
from lori_core.models.base_model import prepare
from support import peft_folder, random_adapter, refused, tiny

IDS = torch.randint(0, 250, (2, 11), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two adapters of ours, a and b, and one of PEFT's, p."""
    for seed, name in enumerate("ab", start=1):
        adapter_file.save(random_adapter(key=name, seed=seed), tmp_path / name)
    peft_folder(tmp_path / "p", r=6, use_rslora=True, target_modules=["q_proj", "up_proj"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_inspect_shows_origin_sizes_and_sparsity(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "a"]) == 0
    shown = capsys.readouterr().out
    for part in ("adapter a: verified", "drawn from a (seed 42", "key-of-a", "limit", "dense LoRA"):
        assert part in shown
    assert "    q_proj " in shown
    assert main(["inspect", "p"]) == 0
    shown = capsys.readouterr().out
    assert "a PEFT folder" in shown
    assert "stored" in shown
    size = sum(file.stat().st_size for file in (folder / "p").iterdir())
    assert f"{size:,}" in shown


def test_ours_and_pefts_are_merged_and_the_recipe_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = adapter_file.load(folder / "a").base
    theirs = replace(peft_file.import_peft(folder / "p"), base=base)
    adapter_file.save(theirs, folder / "p2")
    argv = ["merge", "a", "b", "p2", "--method", "ties", "--density", "0.7"]
    assert main([*argv, "--weights=0.5,-0.25,1", "-o", "out"]) == 0
    assert "out: ties of 3 adapters, rank 6" in capsys.readouterr().out
    recipe = adapter_file.load(folder / "out").info["recipe"]
    assert [parent["weight"] for parent in recipe["parents"]] == [0.5, -0.25, 1]
    assert main(["inspect", "out"]) == 0
    assert "-0.25 x b (content key key-of-b)" in capsys.readouterr().out
    assert main(["merge", "a", "b", "--weights", "0.3", "-o", "out"]) == 0
    merged = adapter_file.load(folder / "out")
    assert (merged.rank, [block.key for block in merged.blocks]) == (8, ["a", "b"])


def test_interference_prints_a_table_and_writes_a_picture(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["interference", "a", "b", "-o", "out"]) == 0
    shown = capsys.readouterr().out
    assert "a+b" in shown
    assert "WARNING" not in shown
    assert {path.name for path in Path("out").iterdir()} == {
        "interference.json",
        "interference.png",
    }
    adapter_file.save(random_adapter(key="a", seed=7), folder / "twin")
    assert main(["interference", "a", "twin", "--modules"]) == 0
    shown = capsys.readouterr().out
    assert "WARNING: a and twin SHARE the projection key 'a'" in shown
    assert "model.layers.1.mlp.down_proj" in shown


def test_adapters_are_named_by_the_parts_of_their_paths_that_differ() -> None:
    tasks = [Path("artifacts/math/adapter"), Path("artifacts/code/adapter")]
    assert names_of(tasks) == ["math", "code"]
    assert names_of([*tasks, Path("merged/concat")]) == [
        "math/adapter",
        "code/adapter",
        "merged/concat",
    ]
    assert names_of([Path("one/a/x"), Path("two/a/y")]) == ["x", "y"]
    assert names_of(tasks[:1]) == ["adapter"]


def test_a_closed_output_pipe_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m lori_cli inspect a | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.stderr == ""


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_exported_merged_model_equals_the_base_with_the_adapter(
    folder: Path, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = random_adapter(architecture)
    adapter_file.save(adapter, folder / "adapter")
    assert main(["export", "adapter", "baked", "--to", "merged"]) == 0
    assert f"with the adapter in {len(adapter.modules)} matrices" in capsys.readouterr().out
    baked = AutoModelForCausalLM.from_pretrained(folder / "baked")
    with torch.no_grad():
        expected = attach.apply_adapter(tiny(architecture)[0], adapter).eval()(IDS).logits
        assert torch.allclose(baked.eval()(IDS).logits, expected, atol=1e-4)
    base = prepare(ModelSection(name_or_path=f"random:{architecture}"))
    assert (folder / "baked" / "tokenizer.json").read_bytes() == (
        base / "tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["merge", "a", "b", "--method", "tiez", "-o", "x"], "'tiez' is unknown; did you mean 'ti"),
        (["merge", "a", "b", "--method", "ties", "-o", "x"], "ties needs a density"),
        (["merge", "a", "b", "--seed", "7", "-o", "x"], "--seed: the method concat does not use"),
        (
            ["merge", "a", "b", "--majority-sign", "frequency", "-o", "x"],
            "--majority-sign: the method concat does not use it; remove the option, or choose one",
        ),
        (["merge", "a", "b", "--rank", "4", "-o", "x"], "--rank: the method concat does not use"),
        (["merge", "a", "b", "--weights", "1,2,3", "-o", "x"], "3 weights for 2 adapters"),
        (["merge", "a", "b", "--weights", "1,b", "-o", "x"], "--weights: '1,b'; expected numbers"),
        (["merge", "a", "p", "-o", "x"], "adapters of different base models"),
        (["merge", "a", "nowhere", "-o", "x"], "nowhere: no adapter here"),
        (["interference", "a"], "1 adapter given; at least two"),
        (["interference", "a", "a"], "an adapter is named twice"),
        (
            ["export", "a", "x", "--to", "merged", "--serving", "vllm"],
            "--serving: only with --to",
        ),
        (["export", "a", "b", "--to", "merged"], "b: exists and is not an empty folder"),
        (["export", "a", "x", "--to", "merged", "--base", "random:gpt2"], "whose config differ"),
        (["inspect", "nothing"], "neither an adapter's folder nor a mask"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert message in refused(capsys, *argv)
    assert not (folder / "x").exists()


def test_merge_searches_weights_on_validation_examples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["merge", "a", "b", "--search", "--tasks", "bundled-math,bundled-nlu", "-o", "out"]
    assert main([*argv, "--weights", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "candidate 1 (given weights): weights bundled-math 0.10, bundled-nlu 0.10" in shown
    assert "of the tasks' gains in validation loss" in shown
    parents = adapter_file.load(folder / "out").info["recipe"]["parents"]
    assert [parent["task"] for parent in parents] == ["a", "b"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--tasks", "x"], "--tasks: only with --search"),
        (["--search-by", "layer"], "--search-by: only with --search"),
        (["--search", "--tasks", "bundled-math"], "--tasks: 1 tasks for 2 adapters (a, b); name"),
        (["--search", "--tasks", "a,a"], "each adapter needs a task of its own"),
        (["--search"], "--tasks: task 'a' is unknown (allowed: "),
        (["--search", "--search-by", "layer", "--method", "linear"], "--search: search.by: layer"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(
    folder: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "merge", "a", "b", "-o", "out", *argv)
    assert not (folder / "out").exists()
