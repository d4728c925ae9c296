"""The other methods through the engine: what is trained is what comes back from the files."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lori_core import config
from lori_core.adapters.adapter import Adapter
from lori_core.config import Params
from lori_core.core.errors import AdapterError, ConfigError, DivergedError
from lori_core.core.tracking import NullTracker
from lori_core.data.batching import collate
from lori_core.data.sources import pulling
from lori_core.evaluation.evaluate import adapter_applied
from lori_core.methods import catalogue, finetuned_model, tuning
from lori_core.methods.finetuned_model import FinetunedModel, Trained
from lori_core.methods.loaded_model import LoadedModel, load_model, training_rows
from lori_core.methods.lori import calibration
from lori_core.methods.training_method import REGISTERED, Provenance
from lori_core.models import peft_names
from lori_core.pipeline import params_file, running
from lori_core.training.loss import example_losses
from support import random_adapter, refused, tiny

ROOT = Path(__file__).parents[2]
OTHERS = [
    name for name, m in catalogue.METHODS.items() if m.calibrated_by is None and not m.keeps_safety
]


def params_with(**tasks: dict[str, Any]) -> Params:
    values = params_file._plain(params_file._read(ROOT / "profiles" / "smoke.yaml"))
    smoke = values["tasks"]
    values["tasks"] = {name: smoke[name] | more for name, more in tasks.items()}
    values["continual"] = values["experiments"] = {}
    return config.parse(values, "params.yaml")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Params]:
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = params_with(math={}, safety={})
        pulling.pull(params)
        yield params


def tune(
    params: Params, method: str, seed: int = 1, start: Adapter | None = None, **section: Any
) -> tuple[LoadedModel, Trained, Any]:
    lori = params.lori.model_copy(update={"seed": seed})
    session = load_model(params.model_copy(update={"lori": lori}))
    chosen = params.phase("math", "training").model_copy(update={"batch_size": 8} | section)
    run = tuning.Tuning("train@math", "math", method, chosen, start=start)
    trained, result = tuning.tune(session, run, NullTracker())
    return session, trained, result


def losses(session: LoadedModel, model: Any) -> torch.Tensor:
    rows, _ = training_rows(session, "math", session.params.training)
    with torch.inference_mode():
        return example_losses(model, collate(rows[:6], session.tokenizer.pad_token_id))


@pytest.mark.parametrize("method", OTHERS)
def test_what_is_saved_is_what_was_trained(workspace: Params, tmp_path: Path, method: str) -> None:
    kind, seen = catalogue.METHODS[method], {}

    class Spied(kind):  # type: ignore[misc, valid-type]
        def collect(self, model: Any, provenance: Provenance) -> Trained:
            seen["losses"] = losses(load_model(workspace), model.eval())
            return super().collect(model, provenance)  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REGISTERED._entries, method, replace(REGISTERED[method], method=Spied))
        _, trained, result = tune(workspace, method)
    assert isinstance(trained, FinetunedModel) == (kind.result != "low-rank")
    assert result.steps == 4
    finetuned_model.save_model(trained, tmp_path / "model")
    loaded = finetuned_model.open_model(tmp_path / "model")
    fresh = load_model(workspace)
    before = losses(fresh, fresh.model)
    with adapter_applied(fresh, loaded) as model:
        found = losses(fresh, model)
    assert torch.allclose(found, seen["losses"], rtol=1e-4)
    assert not torch.allclose(found, before, rtol=1e-3)
    assert torch.equal(losses(fresh, fresh.model), before)  # the base is itself again
    cost = catalogue.cost(
        method, load_model(workspace).model, workspace.lori, catalogue.options(method, {}, "x")
    )
    assert result.trainable_parameters == cost.trainable


@pytest.mark.parametrize("method", ["lora", "vera", "adalora"])
def test_the_same_seed_gives_the_same_bytes(workspace: Params, tmp_path: Path, method: str) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        finetuned_model.save_model(tune(workspace, method, seed)[1], tmp_path / name)
    first, again, other = (
        {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        for name in ("first", "again", "other")
    )
    assert first == again
    assert first != other


def test_only_what_a_method_trains_changes(workspace: Params) -> None:
    _, first, _ = tune(workspace, "lora-fa")
    _, second, _ = tune(workspace, "lora-fa", learning_rate=1e-4)
    assert isinstance(first, Adapter)
    assert isinstance(second, Adapter)
    for name in first.modules:
        assert torch.equal(first.A(name), second.A(name))
        assert not torch.equal(first.B(name), second.B(name))


def test_lora_plus_trains_b_faster(workspace: Params) -> None:
    """AdamW's first step is the learning rate wherever there is a gradient."""
    _, plain, _ = tune(workspace, "lora", max_steps=1, learning_rate=1e-4)
    _, faster, _ = tune(workspace, "lora-plus", max_steps=1, learning_rate=1e-4)
    name = next(iter(plain.modules))  # type: ignore[union-attr]
    largest = [float(a.B(name).abs().max()) for a in (plain, faster)]  # type: ignore[union-attr]
    assert largest == pytest.approx([1e-4, 16e-4], rel=1e-3)


def test_lora_plus_decays_weights(workspace: Params) -> None:
    """AdamW multiplies a weight by 1 - lr · decay before its first step, A's and B's alike."""
    step: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-4}
    _, plain, _ = tune(workspace, "lora-plus", **step)
    _, decayed, _ = tune(workspace, "lora-plus", weight_decay=100.0, **step)
    assert isinstance(plain, Adapter)
    assert isinstance(decayed, Adapter)
    session = load_model(workspace)
    with tuning._seeded(1, "math"):
        begun = catalogue.build(
            "lora-plus", session.model, workspace.lori, catalogue.options("lora-plus", {}, "x")
        )
    for name, layer in peft_names.lora_layers(begun).items():
        change = decayed.A(name) - plain.A(name)
        assert torch.allclose(change, -1e-2 * layer.lora_A["default"].weight, atol=1e-6)


def test_low_rank_results_are_saved_in_the_dtype_that_is_asked_for(workspace: Params) -> None:
    lori = workspace.lori.model_copy(update={"values_dtype": "bfloat16"})
    half = workspace.model_copy(update={"lori": lori})
    for method, dtype in (
        ("lora", torch.bfloat16),
        ("adalora", torch.bfloat16),
        ("pissa", torch.float32),  # a small difference of large products
    ):
        _, whole, _ = tune(workspace, method, max_steps=2)
        _, found, _ = tune(half, method, max_steps=2)
        assert isinstance(whole, Adapter)
        assert isinstance(found, Adapter)
        assert (found.dtype, whole.dtype) == (dtype, torch.float32)
        for name in found.modules:
            assert torch.equal(found.A(name), whole.A(name).to(dtype).float())
            assert torch.equal(found.B(name), whole.B(name).to(dtype).float())
        keys = [adapter.info["content_key"] for adapter in (whole, found)]
        assert (keys[0] == keys[1]) == (dtype == torch.float32)
    dora = [tune(params, "dora", max_steps=2)[1] for params in (workspace, half)]
    assert isinstance(dora[1], FinetunedModel)
    assert {t.dtype for t in dora[1].tensors.values()} == {torch.float32}


def test_adalora_schedules_the_steps_that_max_steps_gives(workspace: Params) -> None:
    _, trained, result = tune(workspace, "adalora", max_steps=6, epochs=1)
    assert result.steps == 6  # an epoch has 4
    assert trained.info["depends"]["total_steps"] == 6


def test_adalora_is_refused_for_one_step(workspace: Params) -> None:
    with pytest.raises(
        ConfigError, match=r"tasks\.math\.method: adalora .* needs 2 optimizer steps"
    ):
        tune(workspace, "adalora", max_steps=1)


def test_adalora_ends_with_its_target_rank(workspace: Params) -> None:
    _, trained, result = tune(workspace, "adalora", epochs=3)
    assert isinstance(trained, Adapter)
    ranks = [int(trained.A(name).any(dim=1).sum()) for name in trained.modules]
    assert result.steps == 12
    assert sum(ranks) == 4 * len(ranks)  # half of rank 8, on average


def test_lora_starts_from_an_adapter(workspace: Params) -> None:
    _, start, _ = tune(workspace, "lora")
    assert isinstance(start, Adapter)
    _, further, _ = tune(workspace, "lora", start=start, max_steps=1, learning_rate=1e-9)
    assert isinstance(further, Adapter)
    for name in start.modules:
        assert torch.allclose(further.delta(name), start.delta(name), atol=1e-6)
    assert further.info["parents"] == [start.info["content_key"]]
    other = dataclasses.replace(
        start,
        modules={n: dataclasses.replace(m, lora_alpha=99) for n, m in start.modules.items()},
    )
    with pytest.raises(AdapterError, match=r"use its lora_alpha"):
        tune(workspace, "lora", start=other)


def test_a_peft_result_is_a_stock_peft_folder(workspace: Params, tmp_path: Path) -> None:
    from peft import PeftModel

    _, trained, _ = tune(workspace, "dora")
    finetuned_model.save_model(trained, tmp_path / "dora")
    fresh = load_model(workspace)
    stock = PeftModel.from_pretrained(fresh.model, str(tmp_path / "dora")).eval()
    found = losses(fresh, stock)
    assert len(peft_names.lora_layers(stock)) == len(fresh.modules)
    again = load_model(workspace)
    with adapter_applied(again, finetuned_model.open_model(tmp_path / "dora")) as model:
        assert torch.equal(losses(again, model), found)


def test_damaged_weights_are_refused(workspace: Params, tmp_path: Path) -> None:
    finetuned_model.save_model(tune(workspace, "ia3", max_steps=1)[1], tmp_path / "ia3")
    file = tmp_path / "ia3" / peft_names.WEIGHTS_FILE
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(AdapterError, match=r"not what was written; make it again"):
        finetuned_model.open_model(tmp_path / "ia3")


def test_what_does_not_fit_the_base_is_refused_in_one_line() -> None:
    model, _, base = tiny("llama")
    whole = {name: weight.detach() for name, weight in model.named_parameters()}
    first, *_ = whole
    config = {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []}
    key = "base_model.model.model.layers.0.self_attn.k_proj.ia3_l"
    for tensors, settings, message in (
        (
            {n: t for n, t in whole.items() if n != first},
            None,
            f"the adapter has no {first}",
        ),
        (whole | {first: torch.zeros(2, 2)}, None, r"trained has \(2, 2\)"),
        ({key: torch.zeros(3, 1)}, config, "it does not fit this base: .*size mismatch"),
        ({}, config | {"target_modules": ["nothing"]}, "it does not fit this base: "),
    ):
        with (
            pytest.raises(AdapterError, match=message) as caught,
            finetuned_model.applied(tiny("llama")[0], FinetunedModel(base, tensors, settings)),
        ):
            pass
        assert len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(w, whole[n]) for n, w in model.named_parameters())


def test_nothing_starts_from_an_adapter_of_another_base(workspace: Params) -> None:
    other = random_adapter("mistral")
    with pytest.raises(AdapterError, match=r"train@math: the starting adapter: made for"):
        tune(workspace, "lora", start=other)
    with pytest.raises(AdapterError, match=r"train@math: the starting adapter: made for the"):
        tune(workspace, "lori-d", start=other)
    session = load_model(workspace)
    (name, *_) = session.modules
    fewer = random_adapter(rank=workspace.lori.rank)
    fewer = dataclasses.replace(
        fewer, modules={n: m for n, m in fewer.modules.items() if n != name}
    )
    with pytest.raises(AdapterError, match=rf"{name} is missing in the safety adapter"):
        tune(workspace, "lori-d", start=fewer)
    with pytest.raises(AdapterError, match=r"train@math: dora cannot start from another adapter"):
        tune(workspace, "dora", start=fewer)
    with pytest.raises(AdapterError, match="math: the calibrated adapter: made for the base"):
        calibration.gradients("mean_square", other, session, "math")


@pytest.mark.parametrize("method", ["lora", "dora", "lori-d"])
def test_the_pipeline_runs_with_any_method(tmp_path: Path, method: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        params = params_with(math={"method": method}, safety={})
        values = params.model_dump(mode="json")
        if catalogue.METHODS[method].result != "low-rank":
            values["merge"] = {"concat": {"method": "concat", "adapters": ["safety"]}}
        values["continual"] = {"safety_task": "safety", "tasks": []}
        if method == "lori-d":
            values["continual"]["tasks"] = ["math"]
        values["tasks"]["math"]["sizes"] = {"train": 8, "validation": 4, "test": 4}
        values["tasks"]["safety"]["sizes"] = {"train": 8, "validation": 4, "test": 8}
        params = config.parse(values, "params.yaml")
        catalogue.check(params)
        pulling.pull(params)
        merges, continued = list(params.merge), list(params.continual.tasks)
        plan: dict[str, list[Any]] = {
            "calibrate": ["math", "safety"],
            "mask": ["math", "safety"],
            "train": ["math", "safety"],
            "continual": continued,
            "merge": merges,
            "interference": [None],
            "evaluate_base": [None],
            "evaluate_adapters": ["math", "safety"],
            "evaluate_merged": merges,
            "evaluate_continual": continued,
            "excess": merges,
            "report": [None],
        }
        for name, items in plan.items():
            for item in items:
                running.run(params, name, item, NullTracker())
        assert json.loads(Path("metrics/train/math.json").read_text())["method"] == method
        calibrated = json.loads(Path("metrics/calibrate/math.json").read_text())
        assert calibrated == {"method": method, "unused": True}
        summary = json.loads(Path("report/summary.json").read_text())
        models = [row["model"] for row in summary["table"]]
        assert models[:3] == ["base", "LoRI-D, each on its own", "adapters, each on its own"]
        assert Path("report/index.html").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "tasks.math.method=lorra",
            "tasks.math.method: method 'lorra' is unknown; did you mean 'lora'?",
        ),
        ("tasks.math.method={name: lora, lr_ratio: 2}", "lora has no options, got lr_ratio"),
        ("tasks.math.method=vera", "merge.concat: task math is trained by vera"),
        ("tasks.math.method=lora", "continual.tasks: math is trained by lora, safety by lori-s"),
    ],
)
def test_what_a_method_cannot_do_is_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "profiles" / "smoke.yaml", "params.yaml")
    before = Path("params.yaml").read_bytes()
    assert said in refused(capsys, "run", "--set", change)
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("method", "lori", "model", "said"),
    [
        ({"name": "adalora", "target_rank": 8}, {}, {}, "target_rank: 8 must be below lori.rank"),
        ("adalora", {"rank": 1}, {}, "target_rank: 1 must be below lori.rank, 1"),
        ("pissa", {}, {"quantization": "8bit"}, "it decomposes the base's weights"),
        (
            {"name": "ia3", "feedforward_modules": ["donw_proj"]},
            {},
            {},
            "feedforward_modules: 'donw_proj' is not in lori.target_modules (q_proj, ",
        ),
    ],
)
def test_settings_with_which_a_method_cannot_train_are_refused(
    method: Any, lori: dict[str, Any], model: dict[str, Any], said: str
) -> None:
    values = params_with(math={}).model_dump(mode="json")
    values["tasks"]["math"]["method"] = method
    values["lori"] |= {"rank": 8} | lori
    values["model"] |= model
    values["merge"], values["gate"]["candidate"] = {}, None
    name = method if isinstance(method, str) else method["name"]
    with pytest.raises(ConfigError, match=re.escape(f"tasks.math.method: {name}: {said}")):
        catalogue.check(config.parse(values, "params.yaml"))


def test_the_default_of_ia3_takes_the_target_modules_that_there_are(workspace: Params) -> None:
    lori = workspace.lori.model_copy(update={"target_modules": ("q_proj",)})
    assert catalogue.METHODS["ia3"].fault(lori, catalogue.options("ia3", {}, "x"), None) is None


def test_weights_of_a_quantised_base_cannot_be_trained() -> None:
    params = params_with(math={"method": "full"})
    values = params.model_dump(mode="json")
    values["model"]["quantization"] = "4bit"
    values["merge"], values["gate"]["candidate"] = {}, None
    with pytest.raises(ConfigError, match=r"only an adapter can be trained on a quantised base"):
        catalogue.check(config.parse(values, "params.yaml"))


@pytest.mark.parametrize("method", ["lori-d", "lora", "ia3", "full"])
def test_values_that_end_as_no_numbers_are_not_kept(
    workspace: Params, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The last step's update is seen by no loss: only the values themselves show it."""
    from lori_core.training import trainer

    original = trainer.train

    def ends_badly(model: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(model, *args, **kwargs)
        next(iter(trainer.trainable(model).values())).data.view(-1)[3] = float("inf")
        return result

    monkeypatch.setattr(tuning, "train", ends_badly)
    with pytest.raises(DivergedError, match=r"train@math: .* holds infinity after the last step"):
        tune(workspace, method, max_steps=1)


def test_all_weights_of_another_base_are_not_put_into_a_model(workspace: Params) -> None:
    session = load_model(workspace)
    weights = {name: p.detach().clone() for name, p in session.model.named_parameters()}
    (first, *_) = weights
    odd = {"other.weight": weights[first]}
    lacking = {name: weight for name, weight in weights.items() if name != first}
    for tensors, message in (
        (weights | odd, r"the base has no other\.weight"),
        (lacking, rf"the adapter has no {first}"),
    ):
        with (
            pytest.raises(AdapterError, match=message),
            finetuned_model.applied(session.model, FinetunedModel(session.base, tensors, None)),
        ):
            pass
