from decimal import Decimal
from typing import Any

import pytest

from lori_core import config
from lori_core.config import references
from lori_core.core.errors import ConfigError

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
        section = section.setdefault(name, {})
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
    assert params.lori.exact_sparsity() == Decimal("0.9")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("lori.sparsty", 0.5, "lori.sparsty: unknown key; did you mean 'sparsity'?"),
        ("traning", {}, "traning: unknown key; did you mean 'training'?"),
        ("lori.sparsity", 1.0, "lori.sparsity: input should be less than 1, got 1.0"),
        ("lori.sparsity", -0.1, "lori.sparsity: input should be greater than or equal to 0"),
        ("lori.rank", "many", "lori.rank: input should be a valid integer"),
        (
            "lori.mask_scope",
            "layers",
            "lori.mask_scope: mask scope 'layers' is unknown; did you mean 'layer'?",
        ),
        (
            "lori.importance",
            "size",
            "lori.importance: importance 'size' is unknown; did you mean 'snip'? (allowed: ",
        ),
        ("tasks.math.trainin", {}, "tasks.math.trainin: unknown key; did you mean 'training'?"),
        ("tasks.math.training.lr", 1, "tasks.math.training.key 'lr' is unknown"),
        ("tasks.math.training.epochs", 0, "tasks.math.training.epochs: input should be greater"),
        ("merge.concat.adapters", ["maths"], "merge.concat.adapters: task 'maths' is unknown; did"),
        ("merge.concat.weights", [1.0], "merge.concat.weights: 1 weights for 2 adapters"),
        ("merge.concat.weights", [1.0, float("nan")], "merge.concat.weights: input should be"),
        ("merge.concat.weights", float("inf"), "merge.concat.weights: input should be a finite"),
        ("training.weight_decay", float("inf"), "training.weight_decay: input should be a finite"),
        (
            "merge.concat.method",
            "tie",
            "merge.concat.method: merge method 'tie' is unknown; did",
        ),
        ("merge.concat.method", "ties", "the method ties needs a density, as in density: 0.7"),
        ("merge.concat.density", 1.5, "merge.concat.density: input should be less than or equal"),
        (
            "merge.concat.method",
            "on_safety",
            "the method on_safety adds up what",
        ),
        ("merge.concat.stage", "mask", "merge.concat.stage: input should be 'train' or 'cont"),
        (
            "merge.concat",
            {"method": "on_safety", "stage": "continual", "adapters": ["safety"]},
            "merge.concat.adapters: 'safety' has no continual adapter; allowed are",
        ),
        (
            "experiments",
            {"merges": ["on_safety"]},
            "experiments.merges: on_safety merges",
        ),
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


LOCAL = {"kind": "local", "path": "x"}
TEMPLATES = [
    ("{q:>2000000000}", "'{q:>2000000000}': {q} takes no conversion (!r) and no format (:>9)"),
    ("{q!r}", "'{q!r}': {q} takes no conversion"),
    ("{q!}", "'{q!}': unmatched '{' in format spec ({{ and }} stand for braces themselves)"),
    ("{q:{w}}", "{q} takes no conversion"),
    ("{q.__class__}", "names no key of a record (Python's attributes are not read)"),
    ("{q[a].__init__.__globals__}", "names no key of a record"),
    ("{q[-1]}", "{q[-1]} counts from the end; items are counted from 0"),
    ("q[-1]", "{q[-1]} counts from the end"),
    ("{}", "{} is no field, as {name}, {name.key} or {name[0]}"),
    ("{q..a}", "{q..a} is no field"),
    ("{q[}", "'{q[}': expected '}' before end of string"),
    ("{q[]}", "{q[]} is no field"),
    ("{q[a}b]}", "is no field"),
    ("{q", "'{q': expected '}' before end of string ({{ and }} stand for braces themselves)"),
    ("q}", "Single '}' encountered in format string"),
    ("a {{b}", "Single '}' encountered in format string"),
    ("{a{b}}", "unexpected '{' in field name"),
]


@pytest.mark.parametrize(("template", "message"), TEMPLATES)
def test_a_template_that_cannot_be_filled_is_refused_when_it_is_read(
    template: str, message: str
) -> None:
    source = LOCAL | {"fields": {"prompt": "q", "target": template}}
    for given, where in (
        (source, "tasks.math.source.fields.target: "),
        (["bundled-math", source], "tasks.math.source[1].fields.target: "),
    ):
        with pytest.raises(ConfigError) as caught:
            config.parse(changed("tasks.math.source", given), "params.yaml")
        assert str(caught.value).startswith(f"params.yaml: {where}")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"pth": "x"}, "tasks.math.source.pth: unknown key; did you mean 'path'?"),
        (
            {"scorer": "chioce"},
            "tasks.math.source.scorer: scorer 'chioce' is unknown; did",
        ),
        ({"limit": {"train": -1}}, "tasks.math.source.limit.train: input should be greater than"),
        ({"fields": {"prompt": 1}}, "tasks.math.source.fields.prompt: input should be a valid str"),
        ({"fields": {"prmpt": "q"}}, "source.fields: field 'prmpt' is unknown; did you mean 'prom"),
        ({"fields": {"prompt": "q"}}, 'source.fields.target: this key is needed ("" for no target'),
        (
            {"fields": {"prompt": "q", "target": ""}, "format": "gsm8k"},
            "tasks.math.source.fields: the format 'gsm8k' says itself which fields it reads",
        ),
    ],
)
def test_a_fault_in_a_source_is_named_by_its_key(source: dict[str, Any], message: str) -> None:
    for given in (LOCAL | source, ["bundled-math", LOCAL | source]):
        with pytest.raises(ConfigError) as caught:
            config.parse(changed("tasks.math.source", given), "params.yaml")
        assert message.split("source", 1)[1] in str(caught.value)


FIELDS = {"prompt": "q", "target": "t"}


@pytest.mark.parametrize(
    ("source", "key", "words"),
    [
        ({"kind": "bundled", "name": "math", "scorer": "refusal"}, "scorer", "only local and hub"),
        (
            {"kind": "bundled", "name": "math", "answer": "refuse"},
            "answer",
            "on this bundled source",
        ),
        ({"kind": "bundled", "name": "math", "subset": "mine"}, "subset", "on this bundled source"),
        ({"kind": "bundled", "name": "math", "files": {"test": "a"}}, "files", "only local and"),
        ({"kind": "bundled", "name": "math", "license": "MIT"}, "license", "only local and hub"),
        (
            {"kind": "extension", "name": "x", "fields": FIELDS},
            "fields",
            "on this extension source",
        ),
        (LOCAL | {"columns": ["a"]}, "columns", "only hub sources have this key"),
        (LOCAL | {"revision": "a" * 40}, "revision", "only hub sources have this key"),
        (LOCAL | {"config": "main"}, "config", "only hub sources have this key"),
        (LOCAL | {"name": "x"}, "name", "only bundled, extension and hub"),
        ({"kind": "hub", "name": "o/d", "path": "x"}, "path", "only local sources have this key"),
        (
            {"kind": "hub", "name": "o/d", "columns": ["q", "t"], "config": "main"},
            "config",
            "no effect beside columns",
        ),
        (LOCAL | {"fields": FIELDS | {"answer": "a"}, "answer": "3"}, "answer", "fields.answer al"),
        (LOCAL | {"fields": FIELDS | {"kind": "k"}, "subset": "s"}, "subset", "fields.kind alre"),
        (LOCAL | {"fields": FIELDS | {"scorer": "s"}, "scorer": "number"}, "scorer", "fields.sco"),
        (LOCAL | {"messages": "turns", "answer": "x"}, "answer", "have no answer to score"),
    ],
)
def test_a_key_of_a_source_that_has_no_effect_is_refused_by_name(
    source: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(changed("tasks.math.source", source), "params.yaml")
    assert str(caught.value).startswith(f"params.yaml: tasks.math.source.{key}: ")
    assert words in str(caught.value)


def test_every_key_of_a_source_has_an_effect_on_some_kind() -> None:
    used = {key for keys in references.SOURCE_KEYS.values() for key in keys}
    assert used | {"kind"} == set(config.SourceSection.model_fields)


def test_what_a_source_leaves_at_its_default_may_be_written() -> None:
    source = {"kind": "bundled", "name": "math", "path": None, "fields": {}, "scorer": "none"}
    assert config.parse(changed("tasks.math.source", source), "params.yaml")


def test_vllm_is_refused_with_a_quantised_base() -> None:
    values = changed("evaluation", {"engine": "vllm"})
    assert config.parse(values, "params.yaml")
    values["model"]["quantization"] = "4bit"
    with pytest.raises(ConfigError, match=r"evaluation\.engine: vllm opens .* is 4bit; set "):
        config.parse(values, "params.yaml")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("evaluation.protocols", ["fixed", "fixed"]),
        ("evaluation.harness.tasks", ["arc_easy", "arc_easy"]),
        ("experiments.seeds", [1, 1]),
        ("experiments.methods", ["lora", "lora"]),
        ("lori.target_modules", ["q_proj", "v_proj", "q_proj"]),
    ],
)
def test_a_value_that_is_listed_twice_is_refused(key: str, values: list[Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: .* is listed twice; remove one of the two"):
        config.parse(changed(key, values), "params.yaml")


def test_a_missing_key_is_named() -> None:
    without = changed("tasks.math", {"source": "bundled-math", "training": {}})
    with pytest.raises(ConfigError, match=r"tasks\.math\.calibration: this key is needed"):
        config.parse(without, "params.yaml")


def test_every_merge_method_can_be_configured() -> None:
    from lori_core.merging.merge_methods import MERGE_METHODS

    for name, method in MERGE_METHODS.items():
        density = {"density": 0.5} if method.needs_density else {}
        stage = "continual" if method.starts else "train"
        config.MergeSection.model_validate({"method": name, "stage": stage, **density})


def test_a_merge_of_continual_adapters_takes_the_continual_tasks() -> None:
    safe = {"method": "on_safety", "stage": "continual", "weights": 0.5}
    params = config.parse(changed("merge", {"safe": safe}), "params.yaml")
    assert params.merged_tasks("safe") == ("math",)
    assert params.merge_weights("safe") == [0.5]
    without = changed("merge", {"safe": safe}) | {"continual": {"safety_task": "safety"}}
    with pytest.raises(ConfigError, match=r"merge\.safe\.stage: continual\.tasks is empty"):
        config.parse(without, "params.yaml")
