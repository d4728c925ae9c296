"""The Python API: `import lori_core as lori`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lori_core as lori
from lori_core.adapters import adapter_file
from lori_core.core.errors import AdapterError, ConfigError, InputError
from support import peft_folder, random_adapter

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "random:llama", "dtype": "float32"},
    "lori": {"rank": 4, "lora_alpha": 8, "sparsity": 0.9},
    "training": {"learning_rate": 2e-3, "batch_size": 4, "max_length": 384},
    "tasks": {
        "math": {
            "source": "bundled-math",
            "sizes": {"train": 8, "validation": 2, "test": 4},
            "calibration": {},
            "training": {},
        }
    },
    "evaluation": {
        "batch_size": 4,
        "max_new_tokens": {"choice": 4, "number": 4, "code": 4, "refusal": 4},
    },
}


@pytest.fixture(scope="module")
def params() -> lori.Params:
    return lori.load_params(SETTINGS)


@pytest.fixture(scope="module")
def trained(params: lori.Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the adapter's folder of one task that was trained in a folder."""
    return lori.train(params, "math", workspace=tmp_path_factory.mktemp("work") / "new")


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / name for name in ("math", "code")]
    for number, folder in enumerate(folders, start=1):
        adapter_file.save(random_adapter(key=folder.name, seed=number), folder)
    return folders


def test_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import lori_core; "
        "took = time.perf_counter() - start; lori_core.Params; "
        "print(took, *({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    took, *heavy = run.stdout.split()
    assert heavy == []
    assert float(took) < 0.05


def test_every_name_of_the_api_is_there_and_no_other() -> None:
    assert {name for name in lori.__all__ if getattr(lori, name) is None} == set()
    assert set(lori.__all__) <= set(dir(lori))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lori.nothing  # noqa: B018


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(lori.__file__).parent / "py.typed").is_file()


def test_own_adapters_and_pefts_are_loaded(two: list[Path], tmp_path: Path) -> None:
    model = peft_folder(tmp_path / "peft")
    ours, theirs = lori.load_adapter(two[0]), lori.load_adapter(str(tmp_path / "peft"))
    assert ours.rank == 4
    name = next(name for name in theirs.modules if name.endswith("layers.0.self_attn.q_proj"))
    layer = model.get_submodule(f"base_model.model.{name}")
    assert torch.equal(theirs.B(name), layer.lora_B["default"].weight)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no adapter here"):
        lori.load_adapter(tmp_path)


def test_a_merge_is_the_weighted_sum_and_what_it_wrote(two: list[Path], tmp_path: Path) -> None:
    first, second = map(lori.load_adapter, two)
    written = lori.merge([two[0], second], weights=[0.5, -0.25], out=tmp_path / "out")
    again = lori.load_adapter(tmp_path / "out")
    for name in first.modules:
        expected = 0.5 * first.delta(name) - 0.25 * second.delta(name)
        torch.testing.assert_close(written.delta(name), expected)
        assert torch.equal(again.delta(name), written.delta(name))


def test_a_merge_in_memory_writes_nothing(two: list[Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    merged = lori.merge(two, method="ties", density=0.5)
    assert merged.info["recipe"]["density"] == 0.5
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "tiez"}, "did you mean 'ties'"),
        ({"method": "ties"}, "needs a density"),
        ({"weights": [1.0]}, "1 weights for 2 adapters"),
        ({"density": 0.1}, "^density: the method concat does not use it; remove the option"),
        ({"rank": 2}, "^rank: the method concat does not use it"),
        ({"threshold": 0.5}, "^threshold: the method concat does not use it"),
        ({"seed": 0}, "^seed: the method concat does not use it"),
        (
            {"method": "dare_linear", "density": 0.5, "majority_sign": "total"},
            "^majority_sign: the method dare_linear does not use it",
        ),
    ],
)
def test_a_merge_that_cannot_be_is_refused(
    two: list[Path], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        lori.merge(two, **options)


@pytest.mark.parametrize("adapters", [[], "one"])
def test_a_merge_takes_a_list(adapters: Any) -> None:
    with pytest.raises(InputError, match="give a list of at least one"):
        lori.merge(adapters)


def test_a_merge_never_replaces_an_input_or_a_foreign_folder(
    two: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is, or lies in, the input"):
        lori.merge(two, out=two[0], force=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match=r"holds mine\.txt"):
        lori.merge(two, out=tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


def test_an_export_is_the_same_adapter_for_peft(two: list[Path], tmp_path: Path) -> None:
    out = lori.export(two[0], tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    ours, theirs = lori.load_adapter(two[0]), lori.load_adapter(out)
    assert all(torch.equal(ours.delta(name), theirs.delta(name)) for name in ours.modules)
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        lori.export(two[0], two[1])


def test_adapters_that_name_no_base_are_merged_with_a_warning(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        peft_folder(folder)
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.warns(UserWarning, match="no adapter names its base model"):
        lori.merge(folders)
    assert lori.merge(folders, base="random:llama").base.known


def test_params_come_from_a_file_or_from_values(tmp_path: Path, params: lori.Params) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(SETTINGS))
    assert lori.load_params(path) == lori.load_params(SETTINGS) == params
    with pytest.raises(ConfigError, match=r"params: lori\.rnak: unknown key; did you mean 'rank'"):
        lori.load_params(SETTINGS | {"lori": {"rnak": 4}})
    tasks = {"math": SETTINGS["tasks"]["math"] | {"source": "bundled-maths"}}
    with pytest.raises(ConfigError, match="bundled-math"):
        lori.load_params(SETTINGS | {"tasks": tasks})


def test_training_gives_the_adapter_of_the_pipelines_stages(
    trained: Path, params: lori.Params
) -> None:
    adapter = lori.load_adapter(trained)
    assert trained.is_absolute()
    assert trained.parts[-3:] == ("artifacts", "math", "adapter")
    assert adapter.info["task"] == "math"
    assert adapter.info["method"] == "lori-s"
    assert adapter.mask is not None
    total = sum(rows * columns for rows, columns in adapter.shapes.values())
    assert adapter.count == total - total * 9 // 10
    workspace = trained.parents[2]
    assert sorted(path.name for path in (workspace / "metrics").iterdir()) == [
        "calibrate",
        "mask",
        "train",
    ]


def test_training_leaves_the_current_folder_and_repeats_itself(
    trained: Path, params: lori.Params
) -> None:
    here, before = Path.cwd(), (trained / "adapter.safetensors").read_bytes()
    assert lori.train(params, "math", workspace=trained.parents[2]) == trained
    assert Path.cwd() == here
    assert (trained / "adapter.safetensors").read_bytes() == before


def test_training_refuses_an_unknown_task_and_foreign_folders(
    params: lori.Params, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="task 'maths' is unknown; did you mean 'math'"):
        lori.train(params, "maths", workspace=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    with pytest.raises(InputError, match=r"has a dvc\.yaml: lori run trains there"):
        lori.train(params, "math", workspace=tmp_path)
    (tmp_path / "dvc.yaml").rename(tmp_path / "file")
    with pytest.raises(InputError, match="is not a folder"):
        lori.train(params, "math", workspace=tmp_path / "file")
    (tmp_path / "artifacts" / "math").mkdir(parents=True)
    with pytest.raises(InputError, match="holds artifacts/math, which no earlier call"):
        lori.train(params, "math", workspace=tmp_path)


def test_training_in_several_processes_is_left_to_the_command(tmp_path: Path) -> None:
    training = SETTINGS["training"] | {"processes": 2}
    params = lori.load_params(SETTINGS | {"training": training})
    with pytest.raises(InputError, match=r"training\.processes: 2; the Python API trains in one"):
        lori.train(params, "math", workspace=tmp_path)


def test_an_adapter_and_its_base_are_scored(
    trained: Path, params: lori.Params, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    workspace = trained.parents[2]
    scores = lori.evaluate(trained, tasks=["math"], workspace=workspace, params=params, out=out)
    assert list(scores) == ["math"]
    score = scores["math"]
    assert (score.metric, score.n) == ("exact_match", 4)
    assert score.value is not None
    assert 0 <= score.value <= 1
    written = json.loads((out / "results.json").read_text())
    assert written["scores"]["model"]["math"] == score.details
    assert len((out / "model" / "math.jsonl").read_text().splitlines()) == 4
    again = lori.evaluate(trained, tasks=["math"], workspace=workspace, params=params, out=out)
    assert again == scores


def test_a_method_that_is_no_low_rank_update_is_trained_and_scored(tmp_path: Path) -> None:
    task = SETTINGS["tasks"]["math"] | {"method": "ia3"}
    params = lori.load_params(SETTINGS | {"tasks": {"math": task}})
    folder = lori.train(params, "math", workspace=tmp_path)
    scores = lori.evaluate(folder, tasks=["math"], workspace=tmp_path, params=params, limit=2)
    assert scores["math"].n == 2
    with pytest.raises(AdapterError, match="IA3"):
        lori.load_adapter(folder)


def test_own_examples_are_scored_without_a_trace(
    params: lori.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [lori.Example(f"Is {n} even?", "", "choice", "true") for n in range(3)]
    scores = lori.evaluate(None, params=params, tasks={"parity": examples}, limit=2)
    assert scores["parity"].n == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": ["bundled-maths"], "base": "random:llama"}, "did you mean 'bundled-math'"),
        ({"tasks": ["bundled-math"]}, "which model shall be evaluated"),
        ({"tasks": "bundled-math", "base": "random:llama"}, "give a list of names"),
        ({"tasks": ["bundled-math"], "base": "random:llama", "limit": 0}, "limit: 0; at least 1"),
        (
            {"tasks": {"mine": [lori.Example("a", "b")]}, "base": "random:llama"},
            "mine: its test examples have no answer to judge",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        lori.evaluate(None, **options)
