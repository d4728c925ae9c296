"""Searched weights by groups of modules, and their file."""

from pathlib import Path

import pytest

from lori_core.core.errors import DataError
from lori_core.merging.learned.weight_groups import MergeWeights, groups_of

MODULES = ["model.layers.0.q_proj", "model.layers.0.k_proj", "model.layers.1.q_proj"]


def test_groups_are_all_modules_their_layers_or_themselves() -> None:
    assert groups_of(MODULES, "task") == ["all"]
    assert groups_of(MODULES, "layer") == ["0", "1"]
    assert groups_of(MODULES, "projection") == MODULES


def test_the_file_holds_rounded_weights_and_gives_one_for_each_module(tmp_path: Path) -> None:
    weights = MergeWeights("layer", {"math": {"0": 0.123456, "1": 2.0}}, density=0.66666)
    weights.rounded().write(tmp_path / "w.json")
    again = MergeWeights.read(tmp_path / "w.json")
    assert again == MergeWeights("layer", {"math": {"0": 0.1235, "1": 2.0}}, 0.6667)
    assert list(again.of_modules("math", MODULES).values()) == [0.1235, 0.1235, 2.0]
    assert again.mean("math") == pytest.approx(1.06175)
    for task, modules in (("code", MODULES), ("math", ["model.layers.7.q_proj"])):
        with pytest.raises(DataError, match=f"the searched weights have none for {task} in "):
            again.of_modules(task, modules)


@pytest.mark.parametrize(
    "text",
    ['{"searched": false}', '{"by": "row", "weights": {"a": {"all": 1}}}',
     '{"by": "task", "weights": {}}', '{"by": "task", "weights": {"a": {"all": "1"}}}'],
)  # fmt: skip
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(DataError, match=r"w\.json: no searched weights of a merge"):
        MergeWeights.read(tmp_path / "w.json")
