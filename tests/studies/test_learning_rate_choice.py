"""By which examples a learning rate is chosen: never by those of the test set."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_json, write_jsonl
from lori_core.data.example import Example
from studies import training
from studies.points import FACTS, folder_of

TESTED = [Example("What is 1 + 1?", "2").row()]


def measured(task: str) -> float | None:
    """Return the validation loss of a task; without examples to measure, no model is needed."""
    none: Any = SimpleNamespace(task=task)
    validation = training._Validation(none, none)
    validation(None)
    return validation.loss


@pytest.mark.parametrize("empty", [False, True])
def test_test_examples_do_not_take_the_place_of_validation_examples(
    empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("data/math/test.jsonl"), TESTED)
    if empty:
        write_jsonl(Path("data/math/validation.jsonl"), [])
    assert measured("math") is None


def test_without_a_validation_loss_no_rate_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, loss in (("slow", None), ("fast", None)):
        write_json(folder_of(name) / FACTS, {"validation_loss": loss})
    with pytest.raises(InputError, match=r"slow: no validation example has a target"):
        training.best_of(("slow", "fast"))
