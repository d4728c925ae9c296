"""What `lori pull` leaves for the stages to depend on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lori_core import config
from lori_core.config import ModelSection
from lori_core.core.files.atomic import read_json
from lori_core.models import base_model
from lori_core.pipeline.stages.pull import is_pulled, pull
from support import smoke_params


def params(base: Path, **changes: Any) -> config.Params:
    values = smoke_params().model_dump()
    values["model"]["name_or_path"] = str(base)
    values["tasks"] = {name: values["tasks"][name] for name in ("math", "nlu")} | changes
    for name in ("merge", "continual", "experiments", "gate"):
        values[name] = {}
    return config.parse(values, "params.yaml")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = base_model.prepare(ModelSection(name_or_path="random:llama", dtype="float32"))
    shutil.copytree(made, tmp_path / "base")
    return tmp_path / "base"


def pulled(run: config.Params, base: Path) -> tuple[Any, Any]:
    pull(run, base)
    return read_json(Path("data/base.json")), read_json(Path("data/tasks.json"))


def test_one_byte_of_the_weights_or_of_the_tokenizer_is_another_base(base: Path) -> None:
    run = params(base)
    before, _ = pulled(run, base)
    assert pulled(run, base)[0] == before
    weights = base / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5001] ^= 1  # between the samples that adapters remember of a tensor
    weights.write_bytes(content)
    changed, _ = pulled(run, base)
    assert {key for key in before if before[key] != changed[key]} >= {"content"}
    tokenizer = base / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    other, _ = pulled(run, base)
    assert {key for key in changed if changed[key] != other[key]} == {"tokenizer"}


def test_a_moved_base_is_the_same(base: Path) -> None:
    before, _ = pulled(params(base), base)
    moved = base.rename(base.with_name("moved"))
    assert pulled(params(moved), moved)[0] == before


def test_the_order_of_the_tasks_is_an_input(base: Path) -> None:
    run = params(base)
    assert pulled(run, base)[1] == ["math", "nlu"]
    turned = run.model_copy(update={"tasks": dict(reversed(run.tasks.items()))})
    assert pulled(turned, base)[1] == ["nlu", "math"]


def test_whether_the_data_is_what_is_asked_for_is_known(base: Path) -> None:
    run = params(base)
    assert not is_pulled(run)
    pull(run, base)
    assert is_pulled(run)
    assert not is_pulled(run.model_copy(update={"lori": run.lori.model_copy(update={"seed": 7})}))
    assert is_pulled(run.model_copy(update={"gate": run.gate.model_copy(update={"margin": 0.2})}))
