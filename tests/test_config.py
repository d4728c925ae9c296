from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lori_core import config
from lori_core.errors import ConfigError

ROOT = Path(__file__).parent.parent
GOOD: dict[str, Any] = {
    "model": {"name_or_path": "random:llama"},
    "lori": {},
    "training": {"learning_rate": 1e-3},
    "tasks": {
        "math": {"source": "bundled-math", "calibration": {}, "training": {"learning_rate": 1e-2}},
        "safety": {"source": "bundled-safety", "calibration": {"epochs": 2}, "training": {}},
    },
    "merge": {"concat": {"method": "concat", "weights": 0.5}},
    "continual": {"safety_task": "safety", "tasks": ["math"], "training": {"epochs": 3}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    import copy

    result = copy.deepcopy(GOOD)
    *folders, last = path.split(".")
    section = result
    for name in folders:
        section = section[name]
    section[last] = value
    return result


def test_phases_layer_a_tasks_changes_over_training() -> None:
    params = config.parse(GOOD, "params.yaml")
    assert params.phase("math", "calibration").learning_rate == 1e-3
    assert params.phase("math", "training").learning_rate == 1e-2
    assert params.phase("safety", "calibration").epochs == 2
    continual = params.phase("math", "continual")
    assert (continual.learning_rate, continual.epochs) == (1e-2, 3)
    assert params.merged_tasks("concat") == ("math", "safety")
    assert params.merge_weights("concat") == [0.5, 0.5]
    assert params.exact_sparsity() == Decimal("0.9")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("lori.sparsty", 0.5, "lori.sparsty: unknown key; did you mean 'sparsity'?"),
        ("traning", {}, "traning: unknown key; did you mean 'training'?"),
        ("lori.sparsity", 1.0, "lori.sparsity: input should be less than 1, got 1.0"),
        ("lori.sparsity", -0.1, "lori.sparsity: input should be greater than or equal to 0"),
        ("lori.rank", "many", "lori.rank: input should be a valid integer"),
        ("lori.mask_scope", "layers", "lori.mask_scope: input should be 'model', 'module'"),
        ("lori.importance", "size", "lori.importance: input should be 'magnitude', 'fisher'"),
        ("tasks.math.trainin", {}, "tasks.math.trainin: unknown key; did you mean 'training'?"),
        ("tasks.math.training.lr", 1, "tasks.math.training.key 'lr' is unknown"),
        ("tasks.math.training.epochs", 0, "tasks.math.training.epochs: input should be greater"),
        ("merge.concat.adapters", ["maths"], "merge.concat.adapters: task 'maths' is unknown; did"),
        ("merge.concat.weights", [1.0], "merge.concat.weights: 1 weights for 2 adapters"),
        ("merge.concat.method", "tie", "merge.concat.method: input should be 'concat' or"),
        ("continual.safety_task", "safe", "continual.safety_task: task 'safe' is unknown"),
        ("continual.tasks", ["safety"], "continual.tasks: 'safety' is the safety task itself"),
        ("tasks.math.projection_key", "safety", "two tasks with one key share one A"),
        ("training", {"learning_rate": "fast"}, "training.learning_rate: input should be a valid"),
    ],
)
def test_each_fault_is_one_line_that_names_key_value_and_what_is_allowed(
    path: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(changed(path, value), "params.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("params.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    without = changed("tasks.math", {"source": "bundled-math", "training": {}})
    with pytest.raises(ConfigError, match=r"tasks\.math\.calibration: this key is needed"):
        config.parse(without, "params.yaml")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    for path in (ROOT / "profiles").glob("*.yaml"):
        (tmp_path / "profiles" / path.name).write_text(path.read_text())
    (tmp_path / "params.yaml").write_text((ROOT / "profiles" / "quickstart.yaml").read_text())
    return tmp_path


def test_an_override_changes_one_line_and_says_so(workspace: Path) -> None:
    path = workspace / "params.yaml"
    before = path.read_text().splitlines()
    said = config.apply(path, None, ["lori.rank=16", "training.learning_rate=5e-4"])
    assert said == [
        "params.yaml: lori.rank: 32 -> 16",
        "params.yaml: training.learning_rate: 0.002 -> 0.0005",
    ]
    after = path.read_text().splitlines()
    assert len([1 for a, b in zip(before, after, strict=True) if a != b]) == 2
    assert config.load(path).training.learning_rate == 5e-4


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("smok", [], r"--profile: profile 'smok' is unknown; did you mean 'smoke'"),
        (None, ["lori.rnk=3"], r"lori.rnk: unknown key; did you mean 'rank'"),
        (None, ["lri.rank=3"], r"--set lri: key 'lri' is unknown; did you mean 'lori'"),
        (None, ["lori.rank"], r"expected key=value"),
        (None, ["lori.rank.x=3"], r"lori.rank is a value"),
        ("smoke", ["lori.sparsity=2"], r"lori.sparsity: input should be less than 1"),
    ],
)
def test_a_refused_change_leaves_the_file_as_it_was(
    workspace: Path, profile: str | None, overrides: list[str], message: str
) -> None:
    path = workspace / "params.yaml"
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        config.apply(path, profile, overrides)
    assert path.read_bytes() == before


def test_a_profile_replaces_the_file(workspace: Path) -> None:
    path = workspace / "params.yaml"
    assert config.apply(path, "smoke", []) == ["params.yaml: now the profile smoke"]
    assert config.load(path).model.name_or_path == "random:llama"


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("model:\n  name: [\n")
    with pytest.raises(ConfigError, match=r"params.yaml:3: not valid YAML"):
        config.load(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("name", config.profiles(ROOT / "profiles"))
def test_every_profile_is_valid_and_has_the_four_tasks(name: str) -> None:
    params = config.load(ROOT / "profiles" / f"{name}.yaml")
    assert list(params.tasks) == ["nlu", "math", "code", "safety"]
    assert params.merge["concat"].method == "concat"


def test_params_yaml_is_the_quickstart() -> None:
    quickstart = (ROOT / "profiles" / "quickstart.yaml").read_text()
    assert (ROOT / "params.yaml").read_text() == quickstart


@pytest.mark.parametrize(
    ("profile", "task", "dense", "sparse"),
    [
        ("llama3-8b-r32", "nlu", (5e-5, 1, 64), (5e-4, 1, 64)),
        ("llama3-8b-r32", "math", (5e-5, 3, 64), (5e-4, 3, 64)),
        ("llama3-8b-r64", "math", (5e-5, 3, 128), (1e-3, 3, 128)),
        ("llama3-8b-r64", "code", (1e-5, 2, 128), (1e-4, 2, 128)),
        ("mistral-7b-r32", "nlu", (1e-5, 1, 64), (1e-4, 1, 64)),
        ("mistral-7b-r32", "safety", (5e-5, 1, 64), (5e-4, 1, 64)),
        ("mistral-7b-r64", "math", (1e-4, 3, 32), (5e-4, 3, 64)),
        ("mistral-7b-r64", "safety", (1e-5, 1, 128), (1e-4, 1, 128)),
    ],
)
def test_the_papers_profiles_hold_appendix_d(
    profile: str, task: str, dense: tuple[float, ...], sparse: tuple[float, ...]
) -> None:
    params = config.load(ROOT / "profiles" / f"{profile}.yaml")
    for phase, expected in (("calibration", dense), ("training", sparse)):
        section = params.phase(task, phase)  # type: ignore[arg-type]
        alpha = section.lora_alpha or params.lori.lora_alpha
        assert (section.learning_rate, section.epochs, alpha) == expected
        assert (section.batch_size, section.weight_decay, section.dropout) == (32, 0, 0)
