"""Numbers that are none, or none that the key or the option may be: over every key there is."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bad_inputs.cases import Case, each
from bad_inputs.commands import Commands
from bad_inputs.yaml_texts import GOOD
from lori_core import config
from lori_core.core.errors import ConfigError
from lori_core.core.files import yaml_input
from lori_core.methods import catalogue
from lori_core.pipeline import params_file

#: What is put in the place of each key's value.
VALUES: dict[str, Any] = {
    "nan": math.nan, "infinity": math.inf, "10-to-400": 10**400, "1e308": 1e308, "1e12": 10**12,
    "minus-1": -1, "0": 0, "half": 0.5, "1": 1, "1.0": 1.0, "true": True, "false": False,
    "list": [], "list-of-list": [[1]], "map": {}, "map-of-1": {"a": 1}, "null": None, "empty": "",
    "word": "zz", "16-in-quotes": "16", "yes": "yes", "long": "x" * 5000, "nul": "a\0b",
}  # fmt: skip

POSITIVE, COUNT = {"1"}, {"0", "1"}
REAL, PART = {"half", "1", "1.0"}, {"0", "half"}
FLAG = {"true", "false"}
WORD = {"word", "16-in-quotes", "yes"}
TEXT = {*WORD, "empty", "long"}
NULL = {"null"}
#: Of these values, what each key may be: our own judgement, not the schema's.
TRAINING = {
    "learning_rate": REAL, "epochs": REAL, "max_steps": POSITIVE | NULL, "batch_size": POSITIVE,
    "gradient_accumulation_steps": POSITIVE, "tokens_at_once": POSITIVE, "max_length": POSITIVE,
    "loss": set(),
    "clipping": set(), "max_grad_norm": REAL, "weight_decay": REAL | COUNT, "lr_scheduler": set(),
    "warmup_steps": COUNT, "lora_alpha": POSITIVE | NULL, "dropout": PART,
    "gradient_checkpointing": FLAG, "save_steps": POSITIVE, "processes": POSITIVE,
    "sharding": set(),
}  # fmt: skip
ALLOWED: dict[str, set[str]] = {
    "model.name_or_path": WORD, "model.revision": WORD | NULL, "model.dtype": set(),
    "model.quantization": NULL,
    "prompt.template": set(), "prompt.system": TEXT | NULL,
    "lori.rank": POSITIVE, "lori.lora_alpha": POSITIVE, "lori.sparsity": PART,
    "lori.mask_scope": set(), "lori.importance": set(), "lori.structure": set(),
    "lori.target_modules": set(), "lori.target_modules.0": WORD, "lori.seed": COUNT,
    "lori.values_dtype": set(),
    **{f"training.{key}": allowed for key, allowed in TRAINING.items()},
    **{f"tasks.math.training.{key}": allowed for key, allowed in TRAINING.items()},
    "tasks.math.sizes.train": POSITIVE | NULL, "tasks.math.sizes.validation": POSITIVE | NULL,
    "tasks.math.sizes.test": POSITIVE | NULL, "tasks.math.method": set(),
    "tasks.math.projection_key": WORD | NULL,
    "merge.concat.method": set(), "merge.concat.stage": set(),
    "merge.concat.weights": {"minus-1", "0", *REAL},
    "merge.concat.density": NULL, "merge.concat.majority_sign": set(),
    "merge.concat.rank": NULL, "merge.concat.seed": COUNT, "merge.concat.threshold": NULL,
    "merge.concat.search.by": set(), "merge.concat.search.optimizer": set(),
    "merge.concat.search.examples": POSITIVE, "merge.concat.search.steps": POSITIVE,
    "merge.concat.search.batch": POSITIVE, "merge.concat.search.learning_rate": REAL,
    "merge.concat.search.candidates": POSITIVE, "merge.concat.search.uniformity": REAL | COUNT,
    "merge.concat.search.task_weights.math": REAL | COUNT,
    "continual.safety_task": set(), "continual.tasks.0": set(), "continual.method": NULL,
    "evaluation.likelihood": FLAG, "evaluation.samples": POSITIVE, "evaluation.temperature": REAL,
    "evaluation.top_p": REAL, "evaluation.seed": COUNT, "evaluation.engine": set(),
    "evaluation.protocols": set(), "evaluation.protocols.0": set(),
    "evaluation.batch_size": POSITIVE, "evaluation.max_prompt_length": POSITIVE,
    "evaluation.unsafe_code": FLAG, "evaluation.max_new_tokens.choice": POSITIVE,
    "evaluation.max_new_tokens.number": POSITIVE, "evaluation.max_new_tokens.code": POSITIVE,
    "evaluation.max_new_tokens.refusal": POSITIVE,
    "evaluation.harness.include_path": WORD | NULL, "evaluation.harness.limit": POSITIVE | NULL,
    "evaluation.judge.url": NULL, "evaluation.judge.rubric": set(), "evaluation.judge.model": WORD,
    "evaluation.judge.timeout": REAL, "evaluation.judge.workers": POSITIVE,
    "evaluation.setups.hot.temperature": REAL, "evaluation.setups.hot.top_p": REAL,
    "evaluation.setups.hot.seed": COUNT | NULL, "evaluation.setups.hot.system": TEXT | NULL,
    "evaluation.setups.hot.attack": NULL, "gate.setups.0": set(),
    "execution.engine": set(), "execution.ray_address": NULL, "execution.exchange": set(),
    "execution.gpus": POSITIVE, "execution.share_gpus": POSITIVE, "execution.cpu_stages": POSITIVE,
    "execution.retries": COUNT,
    "tracking.uri": NULL, "tracking.experiment": WORD,
    "storage.remote": WORD | NULL, "storage.push": set(), "storage.retries": COUNT,
    "gate.candidate": NULL, "gate.model": WORD, "gate.confidence": set(), "gate.margin": PART,
    "gate.least_items": POSITIVE, "gate.margins.math": PART,
    "gate.rules.refusal.at_least": {*PART, "null"},
    "gate.rules.refusal.at_most": {"half", "1", "1.0", "null"},
    "experiments.first_base": WORD | NULL,
    "experiments.seeds": set(), "experiments.seeds.0": COUNT, "experiments.methods": {"list"},
    "experiments.methods.0": set(), "experiments.merge_weights.0": REAL,
    "experiments.safety_weights.0": REAL, "experiments.calibration_steps.0": COUNT,
    "experiments.scopes": set(), "experiments.scopes.0": set(),
    "experiments.importances.0": set(), "experiments.structures.0": set(),
    "experiments.sparsities.0": PART, "experiments.sweep_learning_rates.0": REAL,
    "experiments.input_dimensions.0": POSITIVE, "experiments.ranks.0": POSITIVE,
    "experiments.densities.ties": REAL, "experiments.weights_of_four.lora": REAL,
    "experiments.weights_of_three.lora": REAL, "experiments.merges.0": set(),
    "experiments.candidate_rates.0": REAL, "experiments.frozen_a_ranks.0": {"1"},
    "experiments.projections.0": set(), "experiments.projection_weight": REAL,
    "experiments.avoided_examples": POSITIVE,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The smoke profile with every key written out."""
    values = params_file.read_values(GOOD.encode(), "smoke.yaml")
    said: dict[str, Any] = config.parse(values, "smoke.yaml").model_dump(mode="json")
    said["tasks"]["math"]["training"] = dict(said["training"])
    said["gate"]["rules"] = {"refusal": {"at_least": 0.2, "at_most": 0.9}}
    said["merge"]["concat"]["search"] = {
        **config.SearchSection().model_dump(), "task_weights": {"math": 2.0},
    }  # fmt: skip
    said["gate"]["margins"] = {"math": 0.1}
    hot = {"temperature": 1.0, "top_p": 1.0, "seed": 3, "system": None, "attack": None}
    said["evaluation"]["setups"] = {"hot": hot}
    said["gate"]["setups"] = ["hot"]
    said["experiments"]["methods"] = ["lora"]
    return said


def _taken(whole: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield the values that are taken for a key."""
    for name, value in VALUES.items():
        changed: Any = copy.deepcopy(whole)
        *folders, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        section = changed
        for part in folders:
            section = section[part]
        section[last] = value
        try:
            catalogue.check(config.parse(yaml_input.plain(changed, "p: "), "p"))
        except ConfigError:
            continue
        yield name


@pytest.mark.parametrize("key", list(ALLOWED))
def test_a_key_takes_what_it_may_be_and_nothing_else(key: str, whole: dict[str, Any]) -> None:
    assert set(_taken(whole, key)) == ALLOWED[key]


def test_every_key_is_judged(whole: dict[str, Any]) -> None:
    def leaves(value: Any, path: str) -> Iterator[str]:
        inside = value.items() if isinstance(value, Mapping) else enumerate(value[:1])
        for key, inner in inside:
            if isinstance(inner, (Mapping, list)) and inner:
                yield from leaves(inner, f"{path}.{key}")
            elif not isinstance(inner, (Mapping, list)):
                yield f"{path}.{key}".lstrip(".")

    others = ("tasks.nlu.", "tasks.code.", "tasks.safety.", "merge.linear.", "experiments.")
    found = {key for key in leaves(whole, "") if not key.startswith(others)}
    assert found - set(ALLOWED) <= {"tasks.math.source", "tasks.math.sizes.test"}


#: A value of each kind on the command line, turn by turn over the keys.
TURNS = [".nan", ".inf", "-1.5", "1" + "0" * 400, "true", "'16'", "[[1]]", "{a: 1}", "2020-01-01"]
ON_THE_COMMAND_LINE = [
    Case(f"set-{key}", ["plan", "--set", f"{key}={TURNS[number % len(TURNS)]}"], says=[key])
    for number, key in enumerate(
        key for key, allowed in ALLOWED.items()
        if not key.endswith(".0") and not allowed & {*FLAG, *WORD, "minus-1"}
    )
]  # fmt: skip

NUMBERS = {
    "nan": "nan", "inf": "inf", "minus-inf": "-inf", "word": "many", "empty": "", "space": " ",
    "overflow": "1e400", "digits": "9" * 5000, "huge": "1" + "0" * 30, "true": "True",
    "underscore": "1_0", "hexadecimal": "0x10", "arabic": "\u0661", "comma": "1,x",
    "bell": "1\x07", "fraction": "1/2",
}  # fmt: skip
WHOLE = NUMBERS | {"zero": "0", "negative": "-1", "float": "1.5", "float-one": "1.0"}
MERGE = ["merge", "a", "b", "-o", "out"]
INTERFERENCE = ["interference", "a", "b"]
OPTIONS = [
    Case(f"{command[0]}{option}-{name}", [*command, f"{option}={text}"], says=[option])
    for command, option, texts in (
        (MERGE, "--weights", NUMBERS | {"empty-one": "1,", "three": "1,2,3", "large": "1e300"}),
        (MERGE, "--density", NUMBERS | {"zero": "0", "negative": "-0.5", "above-one": "1.5"}),
        (MERGE, "--rank", WHOLE),
        (INTERFERENCE, "--examples", WHOLE),
        ([*INTERFERENCE, "--examples=4"], "--weights", NUMBERS | {"three": "1,2,3"}),
        (MERGE, "--seed", {k: v for k, v in WHOLE.items() if k != "zero"}),
        (["plan"], "--gpus", WHOLE),
        (["evaluate", "--tasks", "math"], "--limit", WHOLE),
        (["evaluate", "--tasks", "math"], "--samples", WHOLE),
        (["evaluate", "--tasks", "math"], "--batch-size", WHOLE),
    )
    for name, text in texts.items()
]


@each(ON_THE_COMMAND_LINE + OPTIONS)
def test_numbers(case: Case, lori: Commands, project: Path) -> None:
    case.check(lori, project)
