"""Training methods as an extension point: one file adds a method to the whole pipeline."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core import config
from lori_core.adapters.adapter import Adapter
from lori_core.core.tracking import NullTracker
from lori_core.data.sources import pulling
from lori_core.methods import catalogue as methods
from lori_core.methods import finetuned_model
from lori_core.methods.baselines.peft_methods import Lora
from lori_core.methods.catalogue import METHODS
from lori_core.methods.loaded_model import load_model
from lori_core.methods.training_method import REGISTERED, Job, training_method
from lori_core.methods.tuning import Tuning, tune
from lori_core.pipeline import params_file, running
from lori_core.registries import registry
from studies.analysis import specs
from studies.builder import Builder
from studies.catalogue import single_task

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "extensions" / "training_method.py"
PEFT = ["full", "lora", "dora", "vera", "ia3", "lora-fa", "adalora", "rslora", "pissa", "lora-plus"]


FILE = "extensions/training_method.py"


@pytest.fixture
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the example's copy in a workspace, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / FILE
    file.parent.mkdir()
    shutil.copy(EXAMPLE, file)
    yield file
    registry.forget(FILE)


def params_with(method: str, **changes: Any) -> config.Params:
    values = params_file._plain(params_file._read(ROOT / "profiles" / "smoke.yaml"))
    values["model"]["name_or_path"] = "random:llama"
    values["training"] |= {"max_steps": 2, "batch_size": 8}
    sizes = {"train": 16, "validation": 4, "test": 4}
    tasks = {name: values["tasks"][name] for name in ("math", "safety")}
    values["tasks"] = {n: task | {"method": method, "sizes": sizes} for n, task in tasks.items()}
    values["experiments"] = {}
    values["merge"] = {"concat": values["merge"]["concat"]}
    values["continual"] = {"safety_task": "safety", "tasks": ["math"]}
    if method not in METHODS or REGISTERED[method].origin is not None:
        values["extensions"] = [FILE]
    return config.parse(values | changes, "params.yaml", Path())


def test_an_extension_is_trained_merged_continued_and_evaluated(
    extension: Path,
) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 30
    params = params_with("lora-half")
    Path("params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
    params = params_file.load(Path("params.yaml"))
    pulling.pull(params)
    for stage in ("calibrate", "mask", "train"):
        for task in ("math", "safety"):
            running.run(params, stage, task, NullTracker())
    for stage, item in (
        ("continual", "math"),
        ("merge", "concat"),
        ("interference", None),
        ("evaluate_base", None),
        ("evaluate_adapters", "math"),
        ("evaluate_adapters", "safety"),
        ("evaluate_merged", "concat"),
        ("evaluate_continual", "math"),
        ("excess", "concat"),
        ("report", None),
    ):
        running.run(params, stage, item, NullTracker())
    trained = finetuned_model.open_model(Path("artifacts/math/adapter"))
    assert isinstance(trained, Adapter)
    assert trained.info["method"] == "lora-half"
    digest = hashlib.sha256(extension.read_bytes()).hexdigest()
    assert trained.info["depends"]["extension"] == {FILE: digest}
    metrics = json.loads(Path("metrics/train/math.json").read_text())
    assert (metrics["method"], metrics["steps"]) == ("lora-half", 2)
    scores = json.loads(Path("metrics/evaluate/adapters/math.json").read_text())
    assert scores["adapter"]["math"]["n"] == 4
    assert "LoRA, half A" in Path("report/index.html").read_text(encoding="utf-8")
    plain, half = (first_A(params, method) for method in ("lora", "lora-half"))
    assert all(torch.equal(half[name], plain[name] / 2) for name in plain)


def first_A(params: config.Params, method: str) -> dict[str, torch.Tensor]:  # noqa: N802
    """Return the A that a method begins with."""
    run = METHODS[method](Job(params.lori, methods.options(method, {}, "x")))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = run.attach(load_model(params).model)
    return {name: p.detach() for name, p in model.named_parameters() if "lora_A" in name}


def test_every_method_says_what_it_is_and_has_one_name() -> None:
    assert list(METHODS) == [*PEFT, "lori-d", "lori-s", *methods.KEEPING]
    assert all(name == m.name and m.label and m.about for name, m in METHODS.items())
    assert {n: m.calibrated_by for n, m in METHODS.items() if m.calibrated_by} == dict.fromkeys(
        ("lori-s", "lori-s-ewc", "lori-s-orthogonal", "lori-s-slao", "lori-s-mix"), "lori-d"
    )


def test_an_extension_is_in_every_list(extension: Path) -> None:
    compared = {cell.factors["method"] for cell in single_task(Builder(params_with("lora-half")))}
    assert compared == {"base", *PEFT, "lori-d", "lori-s", "lora-half"}
    assert specs.METHODS["lora-half"] == "LoRA, half A"
    assert list(specs.METHODS) == ["base", *METHODS]
    assert (*PEFT, "lori-d", "lori-s") == methods.BUILT_IN


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"name": "lora", "label": "L", "about": "a"}, "'lora' is registered already, by LoRI"),
        ({"name": "new", "about": "a"}, "has no label; give the class one"),
        ({"label": "L", "about": "a"}, "has no name; give the class one"),
    ],
)
def test_a_method_that_cannot_be_told_from_another_is_refused(
    facts: dict[str, str], message: str
) -> None:
    known = dict(METHODS)
    with pytest.raises(ValueError, match=message):
        training_method(type("Other", (Lora,), {"__module__": "lori_core.others"} | facts))
    assert known == METHODS


def test_a_method_in_no_extension_file_is_refused() -> None:
    facts = {"name": "new", "label": "L", "about": "a"}
    with pytest.raises(ValueError, match="stands in no extension file; name its file under"):
        training_method(type("Other", (Lora,), facts))


def test_a_mask_goes_with_a_method_that_trains_inside_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = params_with("lora")
    pulling.pull(params)
    run = Tuning("train@math", "math", "lori-s", params.training)
    with pytest.raises(ValueError, match="train@math: lori-s and a mask do not go together"):
        tune(load_model(params), run, NullTracker())


def test_what_the_methods_are_is_known_without_torch() -> None:
    code = (
        "import sys; from lori_core.methods import catalogue as methods;"
        "from lori_core.pipeline import params_file;"
        "print(sorted({'torch', 'peft', 'transformers'} & set(sys.modules)), len(methods.METHODS))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[] 25\n"
