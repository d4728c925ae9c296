"""Base models: `config.json`, weights, tokenizers, chat templates, code in their folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bad_inputs.commands import Commands
from bad_inputs.damage import (
    GONE,
    Damaged,
    appended,
    copy_good,
    each,
    edited,
    not_a_file,
    replaced,
    tensors,
)

CONFIG, TOKENIZER, SETTINGS = "config.json", "tokenizer.json", "tokenizer_config.json"
WEIGHTS = "model.safetensors"
BAKE = ("export", "peft", "out", "--to", "merged", "--base", "model")
SCORE = (
    *("evaluate", "peft", "--tasks", "bundled-math", "--limit", "1", "--base", "model"),
    *("-o", "out"),
)

#: What `config.json` must not say.
WRONG: dict[str, list[Any]] = {
    "num_hidden_layers": [10**8, 0, -2, 2.0, "2", True, [], {"a": 1}, 2**70, 500],
    "hidden_size": [10**9, 0, -64, 64.0, "64", 65, 2**50],
    "intermediate_size": [10**9, -1, "128", 129],
    "num_attention_heads": [0, -4, "4", 10**12, 3],
    "num_key_value_heads": [0, "2", -1],
    "vocab_size": [10**9, 0, -1, "260", 2.5, 2**62],
    "max_position_embeddings": [10**30],
    "head_dim": [10**9, "x", 0],
    "torch_dtype": ["banana", 5, "int8", ["float32"]],
    "dtype": ["banana", 5],
    "model_type": ["banana", 5, None, GONE, [], ""],
    "rope_parameters": ["x", 5, [1], {"rope_type": 5}, {"rope_type": "linear", "factor": "x"}],
    "rope_scaling": ["x", 5, {"type": "linear", "factor": -1}],
    "architectures": [5, [5], "LlamaForCausalLM", {"a": 1}],
}
CONFIGS = [
    Damaged(f"{key}={number}", "model", edited(CONFIG, {key: value}), ("model/",), BAKE)
    for key, values in WRONG.items()
    for number, value in enumerate(values)
    if (key, value) != ("hidden_size", 65)
]
TEXTS = {
    "empty": "",
    "list": "[1]",
    "number": "5",
    "null": "null",
    "nested": "[" * 100_000,
    "latin": b'{"a": "\xe9"}',
    "large": '{"a": [' + "1," * 9_000_000 + "1]}",
    "digits": '{"hidden_size": ' + "9" * 6000 + "}",
    "zeros": b"\0" * 64,
}
ADDED = {
    "NaN": ', "x": NaN',
    "twice": ', "hidden_size": 128',
    "half": ', "x": "\\ud800"',
    "deep": ', "x": ' + "[" * 500 + "]" * 500,
}
FILES = [
    *(
        Damaged(f"config {kind} {n}", "model", damage(CONFIG, text), (CONFIG,), BAKE)
        for kind, damage, texts in (("is", replaced, TEXTS), ("with", appended, ADDED))
        for n, text in texts.items()
    ),
    *(
        Damaged(f"{file} {n}", "model", replaced(file, TEXTS[n]), (file,), SCORE)
        for file in (SETTINGS, "generation_config.json", "special_tokens_map.json")
        for n in ("empty", "list", "nested", "latin", "zeros")
    ),
    *(
        Damaged(f"{file} is {kind}", "model", not_a_file(file, kind), ("model",), BAKE)
        for file in (CONFIG, WEIGHTS, TOKENIZER, SETTINGS)
        for kind in ("folder", "pipe", "loop", "zero", "nowhere", "empty")
        if (file, kind) != (TOKENIZER, "empty")
    ),
    Damaged("no weights", "model", not_a_file(WEIGHTS, "gone"), ("no weights",), BAKE),
    Damaged("no config", "model", not_a_file(CONFIG, "gone"), ("config.json",), BAKE),
    *(
        Damaged(f"weights {n}", "model", tensors(lambda h, d, c=c: c, WEIGHTS), (WEIGHTS,), BAKE)
        for n, c in (("empty", b""), ("text", b"text " * 99), ("zeros", b"\0" * 99))
    ),
    Damaged("weights cut", "model", tensors(lambda h, d: (h, d[:-9]), WEIGHTS), (WEIGHTS,), BAKE),
]  # fmt: skip

AUTO = {
    "auto_map": {
        "AutoConfig": "mine.MyConfig",
        "AutoModelForCausalLM": "mine.MyModel",
        "AutoTokenizer": ["mine.MyTokenizer", None],
    }
}
RUN = "from pathlib import Path\nPath('code-was-run').touch()\n"


def with_code(file: str, changes: Mapping[str, Any]) -> Any:
    def damage(folder: Path) -> None:
        edited(file, {**AUTO, **changes})(folder)
        (folder / "mine.py").write_text(RUN)

    return damage


CODE = [
    Damaged(
        "config with code",
        "model",
        with_code(CONFIG, {"model_type": "mine"}),
        ("auto_map", "never run"),
        SCORE,
    ),
    Damaged(
        "tokenizer with code",
        "model",
        with_code(SETTINGS, {"tokenizer_class": "MyTokenizer"}),
        ("tokenizer", "never run"),
        SCORE,
    ),
]


def bpe(vocabulary: Mapping[str, Any], *merges: str) -> str:
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model})


TOKENIZERS: dict[str, Any] = {
    "text": "hello",
    "list": "[]",
    "null": "null",
    "no model": '{"version": "1.0"}',
    "cut": '{"version": "1.0", "model": {"type": "BPE", "vocab": {',
    "ids beyond 32 bits": bpe({"a": 2**40}),
    "ids of text": bpe({"a": "b"}),
    "merges of nothing": bpe({"a": 0}, "x y"),
}


def ids_beyond(folder: Path) -> None:
    path = folder / TOKENIZER
    said = json.loads(path.read_text())
    said["model"]["vocab"]["zzz"] = 100_000
    path.write_text(json.dumps(said))


TEMPLATES = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x",
    "endless text": "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "a long text": "{{ 'x' * 10000000000 }}",
    "a wide number": "{{ '%2000000000d' % 1 }}",
    "doubling": "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}"
    "{% endfor %}{{ n.a }}",
    "a large power": "{{ 3 ** (3 ** 30) }}",
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "syntax": "{% for x in",
    "no end": "{% if x %}",
    "unknown filter": "{{ messages | nothing }}",
    "unknown function": "{{ nothing() }}",
    "refusal": "{{ raise_exception('no\\nnever') }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "include": "{% include '/etc/passwd' %}",
    "division": "{{ 1 / 0 }}",
    "no text": "hello",
    "long": "{# " + "x" * 2_000_000 + " #}",
}
TEXT_CASES = [
    *(
        Damaged(f"tokenizer {n}", "model", replaced(TOKENIZER, t), ("model",), SCORE)
        for n, t in TOKENIZERS.items()
    ),
    Damaged("ids beyond", "model", ids_beyond, ("does not embed",), SCORE),
    *(
        Damaged(
            f"template {n}",
            "model",
            edited(SETTINGS, {"chat_template": t}),
            ("prompt.template: the chat template",),
            SCORE,
        )
        for n, t in TEMPLATES.items()
    ),
    *(
        Damaged(
            f"generation {n}",
            "model",
            edited("generation_config.json", {"eos_token_id": value}),
            ("model",),
            SCORE,
        )
        for n, value in enumerate(("x", [2, "x"], -5, 2.5))
    ),
]


@pytest.fixture(scope="module")
def with_model(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good files with a base model beside them."""
    from lori_core.config import ModelSection
    from lori_core.models import base_model

    folder = tmp_path_factory.mktemp("with-model")
    copy_good(good, folder)
    shutil.copytree(base_model.prepare(ModelSection(name_or_path="random:llama")), folder / "model")
    (folder / "model" / "lori_model.json").unlink()
    (folder / "model" / "special_tokens_map.json").write_text("{}")
    return folder


@each([*CONFIGS, *FILES, *CODE, *TEXT_CASES])
def test_a_bad_model_is_one_line(
    case: Damaged, lori: Commands, project: Path, with_model: Path
) -> None:
    (project / "params.yaml").unlink()  # its model has the same weights, and would be taken
    case.check(lori, project, with_model)


def test_the_good_model_is_used(lori: Commands, project: Path, with_model: Path) -> None:
    copy_good(with_model, project)
    outcome = lori.run(BAKE, project)
    assert outcome.code == 0, outcome.err
