"""The table of what decides each stage, against `dvc.yaml` and against what the code imports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from imports import closure, file_of
from ruamel.yaml import YAML

from flows.versioning.dvc.definition import pipeline, with_dependencies
from lori_core.core import stage_dependencies as table
from lori_core.pipeline.running import STAGES
from studies import code

ROOT = Path(__file__).parents[2]
DEFINED: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
#: The module that a stage's function, a point of the experiments or a content key starts from.
CODE: dict[str, tuple[str, Iterable[str]]] = {
    **{name: (STAGES[name].__module__, stage.code) for name, stage in table.STAGES.items()},
    "point train": ("studies.training", code.POINTS["train"]),
    "point score": ("studies.scoring", code.POINTS["score"]),
    "point map": ("studies.measuring", code.POINTS["map"]),
    "point orthogonality": ("studies.measuring", code.POINTS["orthogonality"]),
    "point collect": ("studies.collecting", code.POINTS["collect"]),
    "point report": ("studies.page.page", code.POINTS["report"]),
    "key of a session": ("lori_core.methods.loaded_model", table.SESSION),
    "key of a trained adapter": ("lori_core.methods.tuning", table.TUNING),
    "key of a merge": ("lori_core.merging.merge", table.MERGING),
    "key of a mask": ("lori_core.methods.lori.calibration", table.MASKING),
}


def covers(code: Iterable[str], file: str) -> bool:
    return any(file == entry or file.startswith(f"{entry}/") for entry in code)


@pytest.mark.parametrize("what", CODE)
def test_all_that_a_stage_imports_is_in_its_code(what: str) -> None:
    module, listed = CODE[what]
    used = {file_of(name) for name in closure(module)} - set(table.NEUTRAL)
    used = {file for file in used if not file.endswith("__init__.py")}
    assert {file for file in used if not covers(listed, file)} == set()


@pytest.mark.parametrize("what", [name for name in CODE if not name.startswith("key of")])
def test_a_stage_names_no_code_that_it_does_not_import(what: str) -> None:
    module, listed = CODE[what]
    used = {file_of(name) for name in closure(module)}
    assert {entry for entry in listed if not any(covers([entry], file) for file in used)} == set()


def test_every_neutral_module_is_there() -> None:
    missing = [name for name in table.NEUTRAL if not (ROOT / "lori_core" / name).is_file()]
    assert missing == []


def test_the_stages_are_those_that_dvc_and_the_command_line_know() -> None:
    assert set(table.STAGES) == set(STAGES) == set(DEFINED)


def test_dvc_yaml_lists_the_tables_inputs_code_and_parameters() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    written = with_dependencies(pipeline())
    assert text == written, "change pipeline.yaml, run: python -m flows.versioning.dvc.definition"


def test_a_list_that_misses_a_file_is_brought_up_to_date() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert "        - lori_core/data/prompts.py\n" in text
    less = text.replace("        - lori_core/data/prompts.py\n", "")
    assert with_dependencies(less) == text
    assert DEFINED["merge"]["do"]["deps"][:3] == [
        "data/tasks.json", "artifacts/merged/${key}.weights.json", "metrics/train",
    ]  # fmt: skip
    assert DEFINED["continual"]["do"]["deps"][2] == "artifacts/${continual.safety_task}/adapter"


@pytest.mark.parametrize("name", table.STAGES)
def test_dvc_yaml_has_a_stage_for_each_of_the_tables_items(name: str) -> None:
    each = {"task": "${tasks}", "merge": "${merge}", "continual task": "${continual.tasks}"}
    assert DEFINED[name].get("foreach") == each.get(table.STAGES[name].items)
