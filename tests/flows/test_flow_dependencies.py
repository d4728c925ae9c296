"""Which stages DVC would run again after a change of any key of `params.yaml`, code or input.

What is expected is written down here once more, by hand: neither the table that `dvc.yaml` follows
nor DVC's own reading of it is believed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from flows.versioning import graph
from lori_core.config import Params

ROOT = Path(__file__).parents[2]
TASKS = ("math", "safety", "plain")
MERGES = ("concat", "two")
PARAMS: dict[str, Any] = {
    "model": {"name_or_path": "random:llama"},
    "prompt": {},
    "lori": {
        "rank": 4,
        "lora_alpha": 8,
        "sparsity": 0.9,
        "mask_scope": "model",
        "importance": "magnitude",
        "structure": "none",
        "target_modules": ["q_proj"],
        "seed": 1,
        "values_dtype": "float32",
    },
    "training": {"batch_size": 4},
    "tasks": {
        name: {
            "source": f"bundled-{name}",
            "method": "lora" if name == "plain" else "lori-s",
            "projection_key": None,
            "calibration": {},
            "training": {},
        }
        for name in TASKS
    },
    "merge": {name: {"method": "concat", "stage": "train", "weights": 0.5} for name in MERGES},
    "continual": {"safety_task": "safety", "tasks": ["math"], "method": None, "training": {}},
    "evaluation": {},
    "gate": {"rules": {}},
}

TRAINED = ("calibrate", "train", "continual")
SCORED = ("evaluate_base", "evaluate_adapters", "evaluate_merged", "evaluate_continual")
#: Key of `params.yaml` -> the steps that depend on it themselves, for all their items. A section's
#: key stands for each key below it.
EXPECTED: dict[str, tuple[str, ...]] = {
    "model": (*TRAINED, "mask", *SCORED, "search", "excess", "report"),
    "prompt": (*TRAINED, "mask", *SCORED, "search", "excess"),
    "lori.rank": (*TRAINED, "report"),
    "lori.lora_alpha": (*TRAINED, "report"),
    "lori.values_dtype": (*TRAINED, "report"),
    "lori.target_modules": (*TRAINED, "mask", "report"),
    "lori.seed": (*TRAINED, "mask", "report"),
    "lori.sparsity": ("mask", "report"),
    "lori.mask_scope": ("mask", "report"),
    "lori.importance": ("mask", "report"),
    "lori.structure": ("mask", "report"),
    "training": (*TRAINED, "mask", "evaluate_adapters", "search", "excess", "report"),
    "evaluation": (*SCORED, "search", "excess"),
    "continual.method": ("continual", "report"),
    "continual.training": ("continual", "report"),
    "continual.safety_task": ("search", "continual", "evaluate_continual", "report"),
    "continual.tasks": ("search", "merge", "report"),
    "execution": (),
    "tracking": (),
    "storage": (),
    "gate": (),
    "gate.rules": ("search",),
    "experiments": (),
    "extensions": (),
}
#: The same of one task, `math`: a stage's name without its item where it is that task's.
OF_A_TASK: dict[str, tuple[str, ...]] = {
    "source": (),
    "sizes": (),
    "method": ("calibrate", "mask", "train", "continual", "evaluate_adapters"),
    "projection_key": ("calibrate", "train"),
    "calibration": ("calibrate", "mask"),
    "training": ("train", "continual", "evaluate_adapters"),
}
ITEMS = {
    **dict.fromkeys(("calibrate", "mask", "train", "evaluate_adapters"), TASKS),
    **dict.fromkeys(("search", "merge", "evaluate_merged", "excess"), MERGES),
    **dict.fromkeys(("continual", "evaluate_continual"), ("math",)),
}


def stages(steps: tuple[str, ...]) -> set[str]:
    return {f"{step}@{item}" if item else step for step in steps for item in ITEMS.get(step, ("",))}


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a section of the schema, down to what is no section itself."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def expected_of(key: str) -> set[str]:
    section, _, rest = key.partition(".")
    found = EXPECTED.get(f"{section}.{rest}")
    return stages(found if found is not None else EXPECTED[section])


ONE_BY_ONE = [key for key in leaves(Params) if key not in ("tasks", "merge")]
CHANGES = {key: expected_of(key) for key in ONE_BY_ONE}
CHANGES |= {
    f"tasks.math.{key}": {f"{step}@math" for step in steps} for key, steps in OF_A_TASK.items()
}
CHANGES |= {
    f"tasks.plain.{key}": {f"{step}@plain" for step in steps if step != "continual"}
    for key, steps in OF_A_TASK.items()
}
CHANGES["merge.two.majority_sign"] = {"search@two", "merge@two", "excess@two", "report"}
CHANGES["merge.two.threshold"] = CHANGES["merge.two.majority_sign"]
CHANGES |= {
    f"merge.two.{key}": {"search@two", "merge@two", "excess@two", "report"}
    for key in ("method", "stage", "weights", "density", "adapters", "rank", "seed", "search")
}


@pytest.fixture(autouse=True)
def _inside(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)  # DVC names stages as they are seen from the current folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the project's code and pipeline, in which every stage is up to date."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("dependencies")
    Repo.init(str(folder), no_scm=True).close()
    shutil.copytree(ROOT / "lori_core", folder / "lori_core", ignore=lambda _, names: [
        name for name in names if name == "__pycache__"
    ])  # fmt: skip
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "params.yaml").write_text(as_text(PARAMS))
    with pytest.MonkeyPatch.context() as patch, graph.opened(folder) as repo:
        patch.chdir(folder)
        nodes = [node for node in repo.index.stages if not node.is_import]
        for path in sorted({str(entry.fs_path) for n in nodes for entry in (*n.deps, *n.outs)}):
            stand_in(Path(path))
        repo.commit(force=True)
        assert graph.stale(folder) == {}
    return folder


def stand_in(path: Path) -> None:
    """Make a file or folder where a stage's input or output would be."""
    if path.exists():
        return
    inside = path if path.suffix else path / "file"
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.write_text("{}")


def as_text(values: Any) -> str:
    import io

    text = io.StringIO()
    YAML().dump(values, text)
    return text.getvalue()


def changed(key: str) -> str:
    """Return `params.yaml` with another value of one key."""
    import copy

    values = copy.deepcopy(PARAMS)
    *folders, last = key.split(".")
    section = values
    for part in folders:
        section = section.setdefault(part, {})
    others: dict[str, Any] = {
        "continual.safety_task": "plain",
        "continual.tasks": [],
        "merge.two.method": "linear",
    }
    section[last] = others.get(key, {"other": 1})
    return as_text(values)


def direct(workspace: Path, params: str | None = None) -> set[str]:
    """Return the stages that something of their own makes stale, not a stage before them."""
    stale = graph.plan(workspace, params=params).stale
    own = {name: [r for r in why if not r.startswith("after ")] for name, why in stale.items()}
    return {name for name, reasons in own.items() if reasons}


@pytest.fixture(scope="module")
def compared(made: Path) -> dict[str, list[str]]:
    """The keys of `params.yaml` whose values DVC compares, by stage."""
    with graph.opened(made) as repo:
        nodes = {node.name: node for node in repo.index.stages}
    return {
        name: [key for dep in node.deps for key in getattr(dep, "params", None) or ()]
        for name, node in nodes.items()
    }


@pytest.mark.parametrize("key", CHANGES)
def test_exactly_the_stages_that_depend_on_a_parameter_compare_it(
    compared: dict[str, list[str]], key: str
) -> None:
    found = {
        name
        for name, keys in compared.items()
        if any(key == tracked or key.startswith(f"{tracked}.") for tracked in keys)
    }
    by_path = stages(("continual", "evaluate_continual")) if key.endswith("safety_task") else set()
    assert found | by_path == CHANGES[key]


#: One of each section, asked of DVC itself.
ASKED = (
    "model.dtype",
    "prompt.template",
    "lori.rank",
    "lori.sparsity",
    "training.learning_rate",
    "continual.safety_task",
    "continual.tasks",
    "evaluation.max_new_tokens",
    "gate.margin",
    "gate.rules",
    "tasks.math.method",
    "tasks.math.projection_key",
    "tasks.plain.training",
    "tasks.plain.sizes",
    "merge.two.method",
)


@pytest.mark.real
@pytest.mark.parametrize("key", ASKED)
def test_a_changed_parameter_makes_exactly_its_stages_stale(made: Path, key: str) -> None:
    assert direct(made, changed(key)) == CHANGES[key]


#: Files -> the steps that depend on them themselves.
FILES: dict[str, tuple[str, ...]] = {
    "lori_core/data/prompts.py": (*TRAINED, "mask", *SCORED, "search", "excess"),
    "lori_core/data/batching.py": (*TRAINED, "mask", *SCORED, "search", "excess"),
    "lori_core/evaluation/held_out.py": ("evaluate_adapters", "search", "excess"),
    "lori_core/methods/lori/calibration.py": ("mask",),
    "lori_core/adapters/masks/importances.py": ("mask",),
    "lori_core/merging/merge_methods.py": ("search", "merge", "excess"),
    "lori_core/methods/catalogue.py": (*TRAINED, "mask", "report"),
    "lori_core/merging/interference.py": ("interference",),
    "lori_core/evaluation/scoring/scorers.py": (*SCORED, "search", "excess", "report"),
    "lori_core/report/page.html": ("report",),
    "lori_core/data/sources/pulling.py": (),
    "lori_core/evaluation/gate.py": (),
    "lori_core/evaluation/gate_rules.py": ("search",),
    "lori_core/registries/extensions.py": (),
    "lori_core/data/sources/made_sets.py": (),
    "lori_core/core/errors.py": (),
    "data/tasks.json": ("search", "merge", "interference", "evaluate_base", "evaluate_merged",
                        "excess", "report"),
    "data/base.json": (*TRAINED, "mask", *SCORED, "search", "excess"),
}  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_makes_exactly_its_stages_stale(made: Path, name: str) -> None:
    path = made / name
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\n")
        assert direct(made) == stages(FILES[name])
    finally:
        path.write_bytes(before)


@pytest.mark.real
def test_a_changed_extension_makes_exactly_its_stages_stale(made: Path) -> None:
    from flows.versioning.dvc.definition import with_extensions

    files = {name: (made / name).read_bytes() for name in ("dvc.yaml", "dvc.lock")}
    mine = made / "extensions" / "mine.py"
    mine.parent.mkdir()
    try:
        mine.write_text("# a merge method\n")
        text = with_extensions(files["dvc.yaml"].decode(), {"extensions/mine.py": {"merge method"}})
        (made / "dvc.yaml").write_text(text)
        with graph.opened(made) as repo:
            repo.commit(force=True)
        assert graph.stale(made) == {}
        mine.write_text("# another\n")
        assert direct(made) == stages(("search", "merge", "excess"))
    finally:
        for name, content in files.items():
            (made / name).write_bytes(content)
        shutil.rmtree(mine.parent)


def harness_params(include_path: str, **values: Any) -> Params:
    section = {"tasks": ["mine"], "include_path": include_path}
    return Params.model_validate(
        {**PARAMS, "training": {"learning_rate": 1e-3}, "evaluation": {"harness": section}} | values
    )


@pytest.mark.real
def test_a_changed_task_of_the_harness_makes_exactly_its_stages_stale(made: Path) -> None:
    from flows.versioning.dvc.definition import follow, missing

    files = {name: (made / name).read_bytes() for name in ("dvc.yaml", "dvc.lock")}
    data = made / "my tasks" / "data" / "mine.json"
    data.parent.mkdir(parents=True)
    params = harness_params("my tasks")
    try:
        data.write_text("[]")
        assert missing(made, params, "evaluate_base") == ["my tasks"]
        assert missing(made, params, "excess") == []
        assert len(follow(made, params)) == 1
        assert (follow(made, params), missing(made, params, "evaluate_base")) == ([], [])
        with graph.opened(made) as repo:
            repo.commit(force=True)
        assert graph.stale(made) == {}
        data.write_text("[1]")
        assert direct(made) == stages(SCORED)
        follow(made, harness_params("elsewhere"))
        assert (made / "dvc.yaml").read_bytes() == files["dvc.yaml"]
    finally:
        for name, content in files.items():
            (made / name).write_bytes(content)
        shutil.rmtree(data.parents[1])


@pytest.mark.parametrize("folder", [".", "..", "tasks/.."])
def test_a_folder_of_task_files_that_contains_the_workspace_is_refused(
    made: Path, folder: str
) -> None:
    from flows.versioning.dvc.definition import follow
    from lori_core.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"include_path: .*: this folder contains the workspace"):
        follow(made, harness_params(folder))


def test_every_key_of_a_task_and_a_merge_is_tried() -> None:
    from lori_core.config import MergeSection, TaskSection

    assert set(OF_A_TASK) == set(TaskSection.model_fields)
    tried = {key.rpartition(".")[2] for key in CHANGES if key.startswith("merge.two.")}
    assert tried == set(MergeSection.model_fields)
