"""What is refused of a run before it begins: lengths, tokenizers, templates."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers_like import gemma
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from lori_core import config, cost
from lori_core.config import Params
from lori_core.core.errors import ConfigError, DataError, LoriError, ModelError
from lori_core.data.prompts import Encoded
from lori_core.data.sources import pulling
from lori_core.evaluation.scoring import paper_scorers
from lori_core.methods import limits
from lori_core.methods.loaded_model import load_model, training_rows
from lori_core.models import base_model
from lori_core.pipeline import params_file
from support import dvc_workspace, refused, tiny

ROOT = Path(__file__).parents[2]
Base = Callable[..., Path]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """Return what copies a tiny model with changes to its JSON files."""

    def copied(architecture: str = "gpt2", **changes: dict[str, Any]) -> Path:
        folder = tmp_path / f"base-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny(architecture)[1], folder)
        for name, values in changes.items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    return copied


def run(folder: Path, **changes: Any) -> Params:
    values: dict[str, Any] = {
        "model": {"name_or_path": str(folder), "dtype": "float32"},
        "prompt": {"template": "plain"},
        "lori": {"target_modules": ["c_attn"]},
        "training": {},
        "tasks": {
            "math": {"source": "bundled-math", "calibration": {}, "training": {}},
            "safety": {"source": "bundled-safety", "calibration": {}, "training": {}},
        },
    }
    return config.parse(values | changes, "params.yaml")


def said(params: Params, kind: type[LoriError] = ConfigError, **options: Any) -> str:
    folder = base_model.prepare(params.model)
    with pytest.raises(kind) as refusal:
        limits.check(params, folder, base_model.load_tokenizer(folder), **options)
    assert "\n" not in str(refusal.value)
    with pytest.raises(kind) as again:
        load_model(params, **options)
    assert str(again.value) == str(refusal.value)
    return str(refusal.value)


def passes(params: Params, **options: Any) -> None:
    folder = base_model.prepare(params.model)
    limits.check(params, folder, base_model.load_tokenizer(folder), **options)


TASK = {"source": "bundled-math", "calibration": {}, "training": {}}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training": {"max_length": 1025}}, "training.max_length: 1025"),
        (
            {"tasks": {"math": TASK | {"calibration": {"max_length": 2000}}}},
            "tasks.math.calibration.max_length: 2000",
        ),
        (
            {"tasks": {"math": TASK | {"training": {"max_length": 2000}}}},
            "tasks.math.training.max_length: 2000",
        ),
        (
            {
                "tasks": {"math": TASK, "safety": TASK | {"projection_key": "s"}},
                "continual": {
                    "safety_task": "safety",
                    "tasks": ["math"],
                    "training": {"max_length": 1500},
                },
            },
            "continual.training.max_length: 1500",
        ),
    ],
)
def test_a_row_that_the_model_has_no_positions_for_is_refused(
    changes: dict[str, Any], key: str, base: Base
) -> None:
    params = run(base(), **changes)
    assert said(params) == (
        f"{key}, but the model has 1024 positions (n_positions in its config.json); set 1024 or "
        "less"
    )
    passes(params, training=False)


def test_an_override_within_the_positions_hides_what_nothing_uses(base: Base) -> None:
    task = TASK | {"calibration": {"max_length": 512}, "training": {"max_length": 1024}}
    passes(run(base(), training={"max_length": 4096}, tasks={"math": task}))
    task = TASK | {"method": "lora", "training": {"max_length": 1024}}  # it calibrates nothing
    passes(run(base(), training={"max_length": 4096}, tasks={"math": task}))


@pytest.mark.parametrize("training", [True, False])
def test_a_prompt_and_what_is_written_after_it_need_positions_together(
    training: bool, base: Base
) -> None:
    passes(run(base()))
    params = run(base(), evaluation={"max_prompt_length": 900, "max_new_tokens": {"number": 128}})
    assert said(params, training=training) == (
        "evaluation.max_prompt_length: 900 and max_new_tokens.number: 128 are 1028 tokens, but the "
        "model has 1024 positions (n_positions in its config.json); lower one of them"
    )


def test_what_is_not_scored_needs_no_positions(base: Base) -> None:
    params = run(base(), evaluation={"max_prompt_length": 2000})
    passes(params, scoring=False)
    assert load_model(params, scoring=False).params is params


def test_the_paper_s_prompts_need_1024_positions(base: Base) -> None:
    assert limits.PAPER_TOKENS == paper_scorers.MAX_LENGTH + paper_scorers.MAX_NEW_TOKENS
    few = {"max_prompt_length": 100, "protocols": ["fixed", "paper"]}
    passes(run(base(), evaluation=few))
    evaluation = few | {"max_new_tokens": {"code": 100}}
    params = run(base("llama", config={"max_position_embeddings": 1000}), evaluation=evaluation)
    message = said(params)
    assert message.startswith("evaluation.protocols: paper takes up to 1024 tokens, but the model")
    assert "trained for 1000 positions (max_position_embeddings in its config.json)" in message
    assert message.endswith("leave it out")


def test_a_template_needs_room_for_words_and_a_target(base: Base) -> None:
    folder = base()
    takes = 140
    for changes, key in (
        ({"training": {"max_length": takes}}, "training.max_length"),
        ({"evaluation": {"max_prompt_length": takes}}, "evaluation.max_prompt_length"),
    ):
        assert said(run(folder, prompt={"template": "alpaca"}, **changes)) == (
            f"{key}: {takes}, but the prompt's template alone takes {takes} tokens; set more, or "
            "prompt.template plain"
        )
    passes(run(folder, prompt={"template": "alpaca"}, training={"max_length": takes + 1}))


def test_a_tokenizer_without_an_end_cannot_be_trained_with(base: Base) -> None:
    folder = base(tokenizer_config={"eos_token": None, "pad_token": None})
    assert said(run(folder), ModelError) == (
        f"model.name_or_path: {folder}: its tokenizer has no end-of-sequence token, so a model "
        "could not learn where an answer ends; name one as eos_token in tokenizer_config.json"
    )
    passes(run(folder), training=False)


def test_rows_whose_losses_a_model_cannot_measure_are_refused(base: Base) -> None:
    model, folder = tiny("gpt2")[0], base()
    tokenizer = base_model.load_tokenizer(folder)
    endless = base(tokenizer_config={"eos_token": None, "pad_token": None})
    fit = Encoded([1, 2], [3], False)
    limits.check_rows({"math": [fit]}, model, tokenizer, "here")
    with pytest.raises(ModelError, match="here: its tokenizer has no end-of-sequence token"):
        limits.check_rows({"math": [fit]}, model, base_model.load_tokenizer(endless), "here")
    most = limits.positions(model.config)
    assert most is not None
    long = Encoded([1] * most, [3], False)
    with pytest.raises(DataError, match=f"math: an example has {most + 1} tokens, but the model "):
        limits.check_rows({"code": [fit], "math": [fit, long]}, model, tokenizer, "here")
    with pytest.raises(DataError, match="math: a text has a token of id 1000000, but the model "):
        limits.check_rows({"math": [Encoded([1], [10**6], False)]}, model, tokenizer, "here")


def test_a_missing_padding_token_is_no_fault(base: Base) -> None:
    folder = base(tokenizer_config={"pad_token": None})
    passes(run(folder))
    tokenizer = base_model.load_tokenizer(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 258


def added(folder: Path, token: str, **special: str) -> Path:
    tokenizer = base_model.load_tokenizer(folder)
    tokenizer.add_special_tokens(special) if special else tokenizer.add_tokens([token])
    assert tokenizer.convert_tokens_to_ids(token) == 260
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_folder_without_a_tokenizer_is_refused(architecture: str, base: Base) -> None:
    folder = base(architecture)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(
        ModelError, match=r"(its tokenizer has no tokens but special|no tokenizer can be) "
    ):
        load_model(run(folder))


@pytest.mark.parametrize("content", ["{broken", "{}", "[]", ""])
def test_a_damaged_tokenizer_is_named(content: str, base: Base) -> None:
    folder = base()
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"base-\d+: no tokenizer can be loaded: \w+\("):
        load_model(run(folder))


@pytest.mark.parametrize("training", [True, False])
def test_a_tokenizer_larger_than_the_model_is_refused(training: bool, base: Base) -> None:
    folder = added(base(), "<new>")
    assert said(run(folder), ModelError, training=training) == (
        f"model.name_or_path: {folder}: its tokenizer has 1 tokens that the model does not embed, "
        "up to '<new>' with id 260 (vocab_size in config.json: 260); take the model's own "
        "tokenizer, or resize the model's embedding"
    )


def test_a_padding_token_that_the_model_does_not_embed_is_not_used(base: Base) -> None:
    folder = added(base(), "<fill>", pad_token="<fill>")
    passes(run(folder))
    assert base_model.load_tokenizer(folder).pad_token_id == 258
    session = load_model(run(folder))
    limits.check_ids(259, session.model, "tasks.math")
    with pytest.raises(LoriError, match=r"^tasks.math: a text has a token of id 260, but the mod"):
        limits.check_ids(260, session.model, "tasks.math")


@pytest.mark.parametrize("role", ["eos_token", "bos_token", "unk_token"])
def test_a_padding_token_with_another_role_has_to_be_embedded(role: str, base: Base) -> None:
    folder = added(base(), "<fill>", pad_token="<fill>", **{role: "<fill>"})
    assert "up to '<fill>' with id 260" in said(run(folder), ModelError)


def test_a_system_turn_without_a_place_is_refused(base: Base) -> None:
    message = said(run(base(), prompt={"template": "alpaca", "system": "Be brief."}))
    assert message.startswith("prompt.system: given, but the template alpaca has no system turn")


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}


@pytest.mark.parametrize(
    ("architecture", "values", "most"),
    [
        ("gpt2", {}, 1024),
        ("gpt2", {"n_positions": 512}, 512),
        ("opt", {}, 2048),
        ("gpt_neo", {}, 2048),
        ("gptj", {"n_positions": 300}, 300),
        ("mpt", {"max_seq_len": 400}, 400),
        ("bloom", {}, None),
        ("mamba", {}, None),
        ("falcon", {"alibi": True}, None),
        ("falcon", {}, 2048),
        ("xlnet", {}, None),
        ("llama", {"max_position_embeddings": 8192}, 8192),
        ("llama", {"rope_parameters": LINEAR}, 2048),
        ("llama", {"rope_parameters": LINEAR | {"original_max_position_embeddings": 2048}}, 8192),
        ("llama", {"rope_parameters": LINEAR | {"original_max_position_embeddings": 512}}, 2048),
        ("llama", {"rope_parameters": {"rope_type": "proportional", "factor": 4.0}}, 2048),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.5}}, 5120),
        ("llama", {"max_position_embeddings": 131072, "rope_parameters": LLAMA3}, 131072),
        ("qwen2", {"max_position_embeddings": 32768, "rope_parameters": YARN}, 131072),
        ("qwen2", {"max_position_embeddings": 131072, "rope_parameters": YARN}, 131072),
        ("phi3", {"max_position_embeddings": 131072, "rope_parameters": LONG}, 131072),
        ("gemma3_text", {"max_position_embeddings": 32768}, 32768),
        ("roberta", {"max_position_embeddings": 514}, 512),
        ("camembert", {"max_position_embeddings": 514, "pad_token_id": 0}, 513),
        ("bert", {"max_position_embeddings": 512}, 512),
    ],
)
def test_how_far_a_model_reaches(
    architecture: str, values: dict[str, Any], most: int | None
) -> None:
    rope = values.get("rope_parameters")
    more = {"rope_parameters": {"rope_theta": 1e4, **rope}} if rope else {}
    assert limits.positions(AutoConfig.for_model(architecture, **(values | more))) == most


def test_what_lies_inside_another_configuration_is_found() -> None:
    whole = AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 4096})
    assert limits.positions(whole) == 4096


def test_positions_with_an_offset_end_where_the_configuration_says() -> None:
    small = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = OPTConfig(vocab_size=50, max_position_embeddings=12, word_embed_proj_dim=16, **small)
    model = OPTForCausalLM(found).eval()
    most = limits.positions(found)
    assert most == 12
    model(torch.ones(1, most, dtype=torch.long))
    with pytest.raises(IndexError):
        model(torch.ones(1, most + 1, dtype=torch.long))


def test_layers_with_a_linear_scaling_reach_as_far_as_is_published() -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert limits.positions(AutoConfig.for_model("gemma3_text", rope_parameters=rope)) == 131072


@pytest.mark.parametrize("architecture", limits.BEHIND_PADDING)
def test_positions_behind_the_padding_are_those_that_are_left(architecture: str) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    values: dict[str, Any] = small | {"num_hidden_layers": 1, "vocab_size": 50, "is_decoder": True}
    values |= (
        {"languages": ["en_XX"], "default_language": "en_XX"} if architecture == "xmod" else {}
    )
    for padding, reached in ((1, 10), (0, 11)):
        found = AutoConfig.for_model(
            architecture, max_position_embeddings=12, pad_token_id=padding, **values
        )
        most = limits.positions(found)
        assert most == reached
        model = AutoModelForCausalLM.from_config(found).eval()
        model(torch.full((1, most), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, most + 1), 7))


def test_what_was_found_good_is_not_checked_again(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, calls = base(), []
    read = base_model.load_tokenizer
    monkeypatch.setattr(base_model, "load_tokenizer", lambda path: calls.append(path) or read(path))
    for _ in range(2):
        limits.remember(limits.check_once(run(folder), folder))
    assert calls == [folder]
    limits.remember(limits.check_once(run(folder, training={"max_length": 1000}), folder))
    assert len(calls) == 2
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    for _ in range(2):
        limits.remember(limits.check_once(run(folder, training={"max_length": 1000}), folder))
    assert len(calls) == 3
    for _ in range(2):
        with pytest.raises(ConfigError, match="max_length"):
            limits.check_once(run(folder, training={"max_length": 5000}), folder)
    assert len(calls) == 5


@pytest.fixture
def gemma_base(tmp_path: Path) -> Path:
    """Return a base whose chat template refuses a system turn, and whose tokenizer appends EOS."""
    found = copy.deepcopy(tiny("llama")[0].config)
    found.vocab_size, found.eos_token_id = 512, 1
    AutoModelForCausalLM.from_config(found).save_pretrained(tmp_path / "gemma")
    gemma(back="<eos>").save_pretrained(tmp_path / "gemma")
    return tmp_path / "gemma"


def test_the_shipped_settings_fit_a_base_without_system_turns(
    gemma_base: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"model.name_or_path={gemma_base}", "training.max_length=1000"]
    params_file.apply(workspace / "params.yaml", None, settings)
    params = params_file.load()
    assert params.prompt.model_dump() == {"template": "auto", "system": ""}
    limits.check_once(params, gemma_base)
    pulling.pull(params)
    rows, _ = training_rows(load_model(params), "math", params.phase("math", "training"))
    for row in rows:
        assert (row.prompt[0], row.prompt.count(2), row.prompt.count(1)) == (2, 1, 0)
        assert (row.target[-1], row.target.count(1)) == (1, 1)
    line = refused(capsys, "run", "--set", "prompt.system=Be brief.")
    assert line.startswith("error: prompt.system: 'Be brief.', but the chat template of the")
    assert "refuses a system turn (System role not supported); set it to null" in line


def test_a_plan_of_what_the_model_cannot_do_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^training\.max_length: 5000, but the model has 1024"):
        cost.count_splits(run(base(), training={"max_length": 5000}), tmp_path)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    for name in ("dvc.yaml", "profiles/smoke.yaml"):
        shutil.copy(ROOT / name, tmp_path / name.replace("profiles/smoke", "params"))
    dvc_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


LENGTH = "evaluation.max_prompt_length"
REFUSAL = f"error: {LENGTH}: 2000 and max_new_tokens.choice: 8 are 2008 tokens, but the model"


@pytest.mark.parametrize(
    "argv",
    [
        ("pull",),
        ("run",),
        ("stage", "calibrate", "math"),
        ("stage", "evaluate_base"),
        ("evaluate", "--tasks", "bundled-math"),
    ],
    ids=" ".join,
)
def test_every_command_refuses_before_it_writes(
    argv: tuple[str, ...], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = workspace / "params.yaml"
    name = LENGTH.partition(".")[2]
    params.write_text(params.read_text().replace(f"{name}: 400", f"{name}: 2000"))
    assert refused(capsys, *argv).startswith(REFUSAL)
    for name in ("data", "artifacts", "metrics", "evaluation", ".lori/checked"):
        assert not (workspace / name).exists()


@pytest.mark.parametrize("argv", [("run",), ("experiment", "granularity")], ids=" ".join)
def test_a_refused_change_leaves_the_parameters_as_they_were(
    argv: tuple[str, ...], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (workspace / "params.yaml").read_bytes()
    assert refused(capsys, *argv, "--set", f"{LENGTH}=2000").startswith(REFUSAL)
    assert (workspace / "params.yaml").read_bytes() == before
