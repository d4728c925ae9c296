"""What MLflow serves: prompts become tokens as in training, and fit the base."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from lori_core import tuned
from lori_core.errors import ConfigError, InputError
from support import random_adapter


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "adapter"
    tuned.export(random_adapter("gpt2"), folder)
    return folder


def served(adapter: Path, **prompt: Any) -> Any:
    from flows.serving.serving_model import LoriModel

    model = LoriModel()
    section = {"name_or_path": "random:gpt2", "dtype": "float32"}
    context = SimpleNamespace(
        model_config={"model": section, "prompt": {"template": "plain", **prompt}},
        artifacts={"adapter": str(adapter)},
    )
    model.load_context(context)
    return model


def test_a_prompt_is_cut_to_what_the_base_has_positions_for(adapter: Path) -> None:
    model = served(adapter)
    prompts = pd.DataFrame({"prompt": ["x" * 3000 + "end", "x" * 1000 + "end"]})
    found = model.predict(None, prompts, {"max_new_tokens": 24})
    assert list(found["text"]) == [found["text"][0]] * 2  # of both the last 1000 are read
    with pytest.raises(InputError, match="max_new_tokens: 1024, but the model has 1024 positions"):
        model.predict(None, prompts, {"max_new_tokens": 1024})


def test_a_system_turn_that_no_template_writes_is_refused(adapter: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompt\.system: .* plain has no system turn"):
        served(adapter, system="Be brief.")
