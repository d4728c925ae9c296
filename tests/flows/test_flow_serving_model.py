"""What MLflow serves: prompts become tokens as in training, fit the base, and are bounded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from lori_core.config import Params
from lori_core.core.errors import ConfigError
from lori_core.methods import finetuned_model
from support import random_adapter

SETTINGS = {
    "model": {"name_or_path": "random:gpt2", "dtype": "float32"},
    "prompt": {"template": "plain"},
    "lori": {"rank": 4},
    "training": {},
    "tasks": {"math": {"source": "bundled-math", "calibration": {}, "training": {}}},
    "evaluation": {
        "batch_size": 3,
        "max_prompt_length": 40,
        "max_new_tokens": {"choice": 2, "number": 8, "code": 4, "refusal": 4},
    },
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "adapter"
    finetuned_model.export(random_adapter("gpt2"), folder)
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


@pytest.fixture(scope="module")
def server(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """MLflow's own scoring server with a registered model in it."""
    from mlflow import pyfunc
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    from flows.serving import packaging

    folder = tmp_path_factory.mktemp("registered") / "model"
    packaging._save(folder, adapter, Params.model_validate(SETTINGS))
    return TestClient(scoring_server.init(pyfunc.load_model(str(folder))))


def ask(server: Any, prompts: Any, params: Any = None) -> tuple[int, dict[str, Any]]:
    request = {"dataframe_split": {"columns": ["prompt"], "data": [[each] for each in prompts]}}
    request |= {} if params is None else {"params": params}
    body = json.dumps(request)
    answer = server.post("/invocations", content=body, headers={"content-type": "application/json"})
    return answer.status_code, answer.json()


def test_a_registered_model_answers(server: Any) -> None:
    status, said = ask(server, ["What is 17 + 25?", "And 1 + 1?"], {"max_new_tokens": 8})
    assert status == 200
    assert [list(row) for row in said["predictions"]] == [["text"], ["text"]]


@pytest.mark.parametrize(
    ("prompts", "params", "message"),
    [
        ([None], None, "prompt 0: expected text, got null"),
        (["a", None], None, "prompt 1: expected text, got null"),
        ([float("nan")], None, "prompt 0: expected text, got null"),
        ([3], None, "prompt 0: expected text, got int"),
        ([True], None, "prompt 0: expected text, got bool"),
        ([["a"]], None, "prompt 0: expected text, got list"),
        ([{"a": 1}], None, "prompt 0: expected text, got dict"),
        ([""], None, "prompt 0: is empty"),
        (["a", " \n"], None, "prompt 1: is empty"),
        ([], None, "prompt: 0 of them; allowed: 1 to 3"),
        (["a"] * 4, None, "prompt: 4 of them; allowed: 1 to 3"),
        (["x" * 5000], None, "prompt 0: 5000 characters; allowed: 1280, and 40 tokens"),
        (["1 2 3 " * 50], None, "prompt 0: has more tokens than fit (allowed: 40)"),
        (["a"], {"max_new_tokens": 9}, "max_new_tokens: 9; allowed: 1 to 8"),
        (["a"], {"max_new_tokens": 0}, "max_new_tokens: 0; allowed: 1 to 8"),
        (["a"], {"max_new_tokens": -1}, "max_new_tokens: -1; allowed: 1 to 8"),
        (["a"], {"max_new_tokens": 10**30}, "max_new_tokens: 1000"),
        (["a"], {"max_new_tokens": None}, "max_new_tokens: None; allowed: 1 to 8"),
    ],
)
def test_a_wrong_request_is_one_line(server: Any, prompts: Any, params: Any, message: str) -> None:
    status, said = ask(server, prompts, params)
    assert status == 400
    assert said["message"].startswith(message)
    assert "\n" not in said["message"]
    assert "stack_trace" not in said


@pytest.mark.parametrize("value", ["8", 1.5, True, [1]])
def test_what_mlflow_itself_refuses_has_no_traceback(server: Any, value: Any) -> None:
    status, said = ask(server, ["a"], {"max_new_tokens": value})
    assert status == 400
    assert "stack_trace" not in said


def test_a_fault_of_the_model_tells_a_client_nothing_of_the_machine(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("/secret/path: gone")

    monkeypatch.setattr("lori_core.evaluation.inference.generation.generate", broken)
    status, said = ask(server, ["a"])
    assert status == 500
    assert said["message"] == "the model failed (OSError); see the server's log"
    assert "stack_trace" not in said


def test_a_prompt_has_to_fit_the_positions_of_the_base(adapter: Path) -> None:
    from mlflow.exceptions import MlflowException

    model = served(adapter)
    short = pd.DataFrame({"prompt": ["x" * 900 + "end"]})
    assert len(model.predict(None, short, {"max_new_tokens": 2})) == 1
    long = pd.DataFrame({"prompt": ["x" * 3000 + "end"]})
    with pytest.raises(MlflowException, match=r"prompt 0: .* fit \(allowed: 1000\)"):
        model.predict(None, long, {"max_new_tokens": 24})
    with pytest.raises(MlflowException, match="max_new_tokens: 1024, but the model has 1024 pos"):
        model.predict(None, short, {"max_new_tokens": 1024})


def test_a_system_turn_that_no_template_writes_is_refused(adapter: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompt\.system: .* plain has no system turn"):
        served(adapter, system="Be brief.")
