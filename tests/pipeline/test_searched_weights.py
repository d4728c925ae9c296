"""The file of searched weights, as the stages `merge` and `excess` read it."""

from pathlib import Path

import pytest

from lori_core import config
from lori_core.core.errors import DataError
from lori_core.merging.learned.weight_groups import MergeWeights
from lori_core.merging.merge_methods import Options
from lori_core.pipeline.merging import Parents, weights_of
from lori_core.pipeline.results import weights_path
from support import random_adapter, smoke_params


@pytest.mark.parametrize("known", [["math"], ["math", "code", "nlu"], ["math", "nlu"]])
def test_weights_that_were_searched_for_other_tasks_are_refused(
    known: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = smoke_params().model_dump()
    values["merge"] = {"two": {"method": "concat", "adapters": ["math", "code"], "search": {}}}
    values["gate"]["candidate"] = None
    params = config.parse(values, "params.yaml")
    adapters = {task: random_adapter("llama", key=task, seed=1) for task in ("math", "code")}
    parents = Parents("concat", adapters, Options(), None)
    MergeWeights("task", {task: {"all": 0.5} for task in known}).write(weights_path("two"))
    with pytest.raises(DataError, match=r"and math, code are merged; .*lori stage search two"):
        weights_of(params, "two", parents)
    MergeWeights("task", {"code": {"all": 0.5}, "math": {"all": 0.25}}).write(weights_path("two"))
    assert weights_of(params, "two", parents) == ({"math": 0.25, "code": 0.5}, None)
