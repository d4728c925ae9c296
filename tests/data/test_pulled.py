"""Reading pulled splits, apart from the code that pulls them."""

import subprocess
import sys
from pathlib import Path

import pytest

from lori_core.core.errors import DataError
from lori_core.core.files.atomic import write_jsonl
from lori_core.data import pulled
from lori_core.data.example import Example


def write(folder: Path, split: str, *prompts: str) -> None:
    (folder / "task").mkdir(exist_ok=True)
    write_jsonl(folder / "task" / f"{split}.jsonl", [Example(text, "a").row() for text in prompts])


def test_a_stage_that_reads_examples_does_not_depend_on_the_code_that_pulls() -> None:
    shown = "print(*(name for name in sys.modules if name.startswith('lori_core.data.')))"
    code = f"import sys, lori_core.data.pulled; {shown}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["lori_core.data.example", "lori_core.data.pulled"]


def test_held_out_is_validation_and_test_where_there_is_none(tmp_path: Path) -> None:
    write(tmp_path, "test", "tested")
    assert [e.prompt for e in pulled.read_held_out("task", tmp_path)] == ["tested"]
    write(tmp_path, "validation")
    assert [e.prompt for e in pulled.read_held_out("task", tmp_path)] == ["tested"]
    write(tmp_path, "validation", "held out")
    assert [e.prompt for e in pulled.read_held_out("task", tmp_path)] == ["held out"]


def test_a_damaged_row_is_named_by_its_line(tmp_path: Path) -> None:
    write(tmp_path, "train", "first")
    path = tmp_path / "task" / "train.jsonl"
    path.write_text(path.read_text() + '\n{"prompt": 1, "target": ""}\n')
    with pytest.raises(DataError, match=r"train.jsonl:3: field 'prompt' must be text, got 1"):
        pulled.read_examples("task", "train", tmp_path)
