"""Extensions: each file of `examples/extensions` adds a kind, through params.yaml and commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from lori_cli import main
from lori_core import config
from lori_core.adapters import adapter_file
from lori_core.adapters.peft_format import peft_file
from lori_core.config import Params
from lori_core.core.errors import ConfigError, InputError
from lori_core.pipeline import params_file
from lori_core.registries import extensions, registry
from lori_core.registries.data_source import DATA_SOURCES
from lori_core.registries.gate_rule import GATE_RULES
from lori_core.registries.mask import IMPORTANCES
from lori_core.registries.merge_method import MERGE_METHODS
from lori_core.registries.scorer import SCORERS
from support import random_adapter

EXAMPLES = Path(__file__).parents[2] / "examples" / "extensions"
KINDS = {
    "merge_method": (MERGE_METHODS, "mean"),
    "importance": (IMPORTANCES, "relative"),
    "scorer": (SCORERS, "words"),
    "gate_rule": (GATE_RULES, "worst"),
    "data_source": (DATA_SOURCES, "sums"),
}
SOURCE = {"kind": "local", "path": "mine.jsonl", "scorer": "words"}
PARAMS: dict[str, Any] = {
    "model": {"name_or_path": "random:llama", "dtype": "float32"},
    "lori": {"rank": 4, "lora_alpha": 8, "importance": "relative", "target_modules": ["q_proj"]},
    "training": {"batch_size": 4, "learning_rate": 1e-3},
    "tasks": {
        "sums": {
            "source": "sums",
            "sizes": {"train": 8, "validation": 2, "test": 4},
            "calibration": {},
            "training": {},
        }
    },
    "merge": {"averaged": {"method": "mean"}},
    "evaluation": {"max_new_tokens": {"words": 3}},
    "gate": {"rules": {"worst": {"at_least": 0.5}}},
    "extensions": [f"extensions/{name}.py" for name in KINDS],
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(EXAMPLES, tmp_path / "extensions")
    write(tmp_path, PARAMS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in (*PARAMS["extensions"], "mine.py", "other.py"):
        registry.forget(path)


def write(folder: Path, params: dict[str, Any]) -> None:
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(params, file)


@pytest.mark.parametrize("name", KINDS)
def test_an_example_is_one_short_file_with_one_decorated_function(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) < 30
    assert text.count(f"@{name}(") == 1


def test_names_of_extensions_are_chosen_in_params_yaml(workspace: Path) -> None:
    params = params_file.load()
    assert params.merge["averaged"].method == "mean"
    assert params.evaluation.new_tokens["words"] == 3
    for name, (kind, entry) in KINDS.items():
        origin = kind[entry].origin
        assert origin is not None
        assert origin.path == f"extensions/{name}.py"


def test_names_are_unknown_where_no_extension_of_the_params_adds_them(workspace: Path) -> None:
    params_file.load()  # they are registered now
    for without in ("merge_method", "importance", "gate_rule", "data_source", "scorer"):
        left = [path for path in PARAMS["extensions"] if without not in path]
        write(workspace, PARAMS | {"extensions": left})
        with pytest.raises(ConfigError, match=f"'{KINDS[without][1]}' is unknown"):
            params_file.load()


def test_a_merge_method_merges_by_params_and_by_command(workspace: Path) -> None:
    parents = [random_adapter(seed=seed, key=f"t{seed}") for seed in (1, 2)]
    for name, parent in zip("ab", parents, strict=True):
        adapter_file.save(parent, workspace / name)
    argv = ["merge", "a", "b", "-o", "out", "--method", "mean"]
    assert main(argv) == 2
    assert main([*argv, "--extension", "extensions/merge_method.py"]) == 0
    merged = peft_file.open_adapter(Path("out"))
    for module in merged.modules:
        deltas = [p.B(module) @ p.A(module) * p.scaling(module) for p in parents]
        torch.testing.assert_close(
            merged.B(module) @ merged.A(module), sum(deltas) / 2, atol=1e-5, rtol=1e-5
        )
    file = Path("extensions/merge_method.py")
    assert merged.info["recipe"]["extension"] == {str(file): sha256(file)}
    before = merged.info["recipe"]["content_key"]
    file.write_text(file.read_text() + "\n# changed\n")
    assert main([*argv, "--extension", "extensions/merge_method.py"]) == 0
    again = peft_file.open_adapter(Path("out"))
    assert again.info["recipe"]["content_key"] != before


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_importance_takes_a_mask(workspace: Path) -> None:
    from lori_core.methods.lori.calibration import take_mask

    params = params_file.load()
    adapter = random_adapter(seed=1, sparsity=None)
    mask, _ = take_mask(lambda: pytest.fail("no gradients"), adapter, params.lori, "sums")
    size = torch.cat([adapter.B(n).abs() / adapter.B(n).abs().mean(1, True) for n in mask.shapes])
    kept = torch.cat([torch.from_numpy(mask.of(n)).view(s) for n, s in mask.shapes.items()])
    assert mask.count == int(kept.sum()) == kept.numel() - int(kept.numel() * 0.9)
    assert size[kept].min() >= size[~kept].max()


def test_a_source_is_pulled_and_pulled_again_when_its_file_changes(workspace: Path) -> None:
    from lori_core.data import pulled
    from lori_core.data.sources import pulling

    params = params_file.load()
    pulling.pull(params)
    examples = pulled.read_examples("sums", "train")
    assert len(examples) == 8
    assert all(example.scorer == "number" for example in examples)
    assert pulling.is_pulled(params, "sums")
    made = json.loads(Path("data/manifest.json").read_text())["tasks"]["sums"]["sources"][0]
    file = Path("extensions/data_source.py")
    assert (made["kind"], made["extension"]) == ("extension", {str(file): sha256(file)})
    file.write_text(file.read_text().replace("{b}?", "{b}!"))
    changed = params_file.load()
    assert not pulling.is_pulled(changed, "sums")
    pulling.pull(changed)
    assert pulled.read_examples("sums", "train")[0].prompt.endswith("!")


def test_a_source_is_listed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "--extension", "extensions/data_source.py"]) == 0
    assert "additions of two numbers below 100" in capsys.readouterr().out


def test_a_scorer_judges_the_examples_of_a_local_file(workspace: Path) -> None:
    from lori_core.data.example import Example
    from lori_core.evaluation.scoring.scorers import score_batch, summarise

    rows = [{"prompt": f"Name {n} colours", "target": "", "answer": "red blue"} for n in range(3)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = PARAMS["tasks"]["sums"] | {"source": SOURCE}
    write(workspace, PARAMS | {"tasks": {"colours": task}})
    params_file.load()
    examples = [Example.from_row(row | {"scorer": "words"}, "here") for row in rows]
    verdicts = score_batch(examples, ["Blue.", "blue sky", "green"])
    assert [verdict.correct for verdict in verdicts] == [False, True, False]
    summary = summarise(examples, verdicts)
    assert (summary["metric"], summary["score"]) == ("word_overlap", pytest.approx(1 / 3))


def test_a_rule_of_the_gate_is_measured(workspace: Path) -> None:
    from lori_core.evaluation import gate

    params = params_file.load()
    files = {}
    for task, right in (("a", [1, 1, 1, 0]), ("b", [1, 0, 0, 0])):
        files[task] = workspace / f"{task}.jsonl"
        rows = [verdict(number, bool(correct)) for number, correct in enumerate(right)]
        files[task].write_text("".join(json.dumps(row) + "\n" for row in rows))
    from lori_core.evaluation.gate_rules import Scored

    found = gate.decide(Scored("it", files), None, None, params.gate)
    (finding,) = found.findings
    assert (finding.rule, finding.value, finding.passed) == ("worst", 0.25, False)
    assert {example["id"] for example in finding.flipped} == {"1", "2", "3"}


def verdict(number: int, correct: bool) -> dict[str, Any]:
    return {
        "id": str(number), "sample": 0, "kind": "", "protocol": "fixed", "counted": True,
        "prompt": "p", "cut": False, "output": "o", "answer": "x", "correct": correct,
        "parsed": "x", "reason": "",
    }  # fmt: skip


OWN = "from lori_core import merge_method\n"
TAKEN = OWN + '@merge_method("svd", "S", "mine")\ndef svd(*_): ...\n'
REFUSED = {
    "absolute": ("/x.py", None, "is absolute; put the file into this folder"),
    "outside": ("../x.py", None, "lies outside of this folder; copy the file to extensions/x.py"),
    "missing": ("extensions/no.py", None, "extensions/no.py: no such file"),
    "a folder": ("extensions", None, "is no Python file; name one that ends in .py"),
    "not Python": ("mine.txt", "", "is no Python file; name one that ends in .py"),
    "fails": ("mine.py", "x = 1\ny = nothing\n", "line 2: NameError: name 'nothing' is not def"),
    "syntax": ("mine.py", "def\n", "line 1: SyntaxError"),
    "exits": ("mine.py", "raise SystemExit(3)\n", "line 1: SystemExit: 3"),
    "taken": ("mine.py", TAKEN, "the merge method 'svd' is registered already, by LoRI itself"),
    "twice": (
        "mine.py",
        TAKEN.replace("svd", "x") * 2,
        "the merge method 'x' is registered already, by mine.py",
    ),
    "a name": ("mine.py", TAKEN.replace('"svd"', '"a b"'), "'a b' cannot be the name of a merge"),
    "needs": ("mine.py", TAKEN.replace('"mine"', '"m", needs=["x"]'), "no option of merges"),
    "of the catalogue": (
        "mine.py",
        "from lori_core import data_source\n"
        '@data_source("gsm8k", "G", "mine", scorer="number", license="MIT")\ndef f(*_): ...\n',
        "'gsm8k' is one of LoRI itself; choose another name",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_an_extension_is_refused_by_name(workspace: Path, what: str) -> None:
    path, text, message = REFUSED[what]
    if text is not None:
        Path(path).write_text(text)
    write(workspace, PARAMS | {"extensions": [*PARAMS["extensions"], path]})
    with pytest.raises(ConfigError) as caught:
        params_file.load()
    assert str(caught.value).startswith("params.yaml: extensions: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    write(workspace, PARAMS)
    assert isinstance(params_file.load(), Params)


def test_two_extensions_cannot_register_one_name(workspace: Path) -> None:
    shutil.copy("extensions/scorer.py", "other.py")
    write(workspace, PARAMS | {"extensions": [*PARAMS["extensions"], "other.py"]})
    with pytest.raises(ConfigError, match=r"'words' is registered already, by extensions/scorer"):
        params_file.load()
    write(workspace, PARAMS | {"extensions": [*PARAMS["extensions"][:2], "other.py",
                                              *PARAMS["extensions"][3:]]})  # fmt: skip
    params_file.load()
    assert SCORERS["words"].origin.path == "other.py"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("B / len(adapters)", "B.double()"), "float64; expected"),
        (("B / len(adapters)", "B / 0"), "values that are not finite numbers"),
        (("return sum(ranks)", "return max(ranks)"), "correct the function, or its `rank`"),
        (("rank=sum", "dense=False, rank=sum"), "is nonzero where every adapter's B is zero"),
    ],
)
def test_a_merge_is_what_its_method_promised(
    workspace: Path, change: tuple[str, str], message: str
) -> None:
    from lori_core.merging.merge import merge
    from lori_core.merging.merge_methods import Options

    file = Path("extensions/merge_method.py")
    file.write_text(file.read_text().replace(*change))
    extensions.load([str(file)], "here")
    parents = [random_adapter(seed=seed, key=f"t{seed}") for seed in (1, 2)]
    merged = merge("mean", parents, [1, 1], Options())
    module = next(iter(merged.modules))
    with pytest.raises(InputError) as caught:
        merged.B(module)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}: mean: ")


def test_no_extension_leaves_dvc_yaml_as_it_is(workspace: Path) -> None:
    from flows.versioning.dvc import definition

    root = Path(__file__).parents[2]
    text = (root / "dvc.yaml").read_text(encoding="utf-8")
    assert definition.with_extensions(text, {}) == text
    assert config.Params.model_fields["extensions"].default == ()


def test_dvc_yaml_follows_the_extensions(workspace: Path) -> None:
    from flows.versioning.dvc import definition

    text = (Path(__file__).parents[2] / "dvc.yaml").read_text(encoding="utf-8")
    Path("dvc.yaml").write_text(text)
    params = params_file.load()
    assert definition.missing(workspace, params, "merge") == ["extensions/merge_method.py"]
    assert definition.follow(workspace, params) != []
    assert definition.follow(workspace, params) == []
    assert definition.missing(workspace, params, "merge") == []
    stages = YAML(typ="safe").load(Path("dvc.yaml").read_text())["stages"]
    found = {
        name: {d for d in stage.get("do", stage)["deps"] if d.startswith("extensions/")}
        for name, stage in stages.items()
    }
    scored, merged = {"extensions/scorer.py"}, {"extensions/merge_method.py"}
    assert {name: deps for name, deps in found.items() if deps} == {
        "mask": {"extensions/importance.py"},
        "search": {*scored, *merged, "extensions/gate_rule.py"},
        "merge": merged,
        "evaluate_base": scored,
        "evaluate_adapters": scored,
        "evaluate_merged": scored,
        "evaluate_continual": scored,
        "excess": scored | merged,
        "report": scored,
    }
    assert definition.with_extensions(Path("dvc.yaml").read_text(), {}) == text


def test_what_an_extension_is_the_first_to_import_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from lori_core.adapters.masks import importances\n"
        "from lori_core.methods import catalogue\n"
        "from lori_core.merging import catalogue as merges\n"
        "from lori_core.registries.mask import importance\n"
        "@importance('mine', 'Mine', 'Scores all entries alike.')\n"
        "def mine(calibrated):\n"
        "    return {}\n"
    )
    code = (
        "from pathlib import Path\n"
        "from lori_core.registries import extensions\n"
        "from lori_core.registries.mask import IMPORTANCES\n"
        "with extensions.loaded(['mine.py'], 'extensions', Path()):\n"
        "    print([name for name, entry in IMPORTANCES.items() if entry.origin])\n"
        "from lori_core.methods.training_method import METHODS, REGISTERED\n"
        "from lori_core.registries.merge_method import MERGE_METHODS\n"
        "entries = [*IMPORTANCES.values(), *REGISTERED.values(), *MERGE_METHODS.values()]\n"
        "print({entry.name for entry in entries if entry.origin})\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "['mine']\n{'mine'}\n"
