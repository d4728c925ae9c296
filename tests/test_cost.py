"""The model of cost: what it counts exactly, and that it is near what was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lori_core import cost
from lori_core.config import TrainingSection
from lori_core.core.errors import InputError
from lori_core.cost import Device, Model, Split, footprint, rates
from lori_core.cost.devices import DEVICES
from lori_core.cost.model import examples_seen
from lori_core.data.sources import pulling
from lori_core.pipeline import params_file

ROOT = Path(__file__).parents[1]
TASKS = ("nlu", "math", "code", "safety")
H100 = DEVICES["h100"]
MACHINE = Device("a test's", 406e9, 20e9, 24e9, "cpu")


def model(profile: str, on: Device = MACHINE, *changes: str, **data: float) -> Model:
    values = {"examples": 100, "tokens": 200.0, "target": 60.0} | data
    split = Split(**values, basis="pulled")  # type: ignore[arg-type]
    params, _ = params_file.changed(ROOT / "params.yaml", profile, changes)
    splits = {task: dict.fromkeys(("train", "validation", "test"), split) for task in params.tasks}
    return Model(params, splits, on)


def test_shapes_of_a_base_that_is_not_here() -> None:
    base = model("llama3-8b-r32").base
    assert base.total == 8_030_261_248
    assert base.body == base.total - 2 * 128_256 * 4096
    assert (base.layers, base.hidden, base.keys, base.vocabulary) == (32, 4096, 1024, 128_256)
    # A and B of the seven projections at rank 32.
    sizes = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (4096, 14336), (4096, 14336),
             (14336, 4096)]  # fmt: skip
    assert base.adapter == 32 * 32 * sum(a + b for a, b in sizes)


def test_operations_of_training_are_those_of_the_formula() -> None:
    made = model("llama3-8b-r32")
    base = made.base
    tokens = 200 * (4 * base.body + 6 * base.adapter)
    expected = 100 * (tokens + 60 * 4 * base.hidden * base.vocabulary)
    assert made.stage("train@safety").flops == pytest.approx(expected)
    assert made.stage("train@math").flops == pytest.approx(3 * expected)  # three epochs
    again = model("llama3-8b-r32", MACHINE, "training.gradient_checkpointing=true")
    extra = 100 * 200 * 2 * base.body
    assert again.stage("train@safety").flops == pytest.approx(expected + extra)


def test_memory_shrinks_by_checkpointing_and_by_quantising() -> None:
    whole = model("llama3-8b-r32")
    plain = whole.stage("train@math").memory
    saved = model("llama3-8b-r32", MACHINE, "training.gradient_checkpointing=true")
    small = model("llama3-8b-r32", MACHINE, "model.quantization=4bit")
    beside = saved.stage("train@math").memory - whole.weights
    assert beside < 0.4 * (plain - whole.weights)
    assert plain - small.stage("train@math").memory == pytest.approx(
        small.base.total * (2 - cost.WEIGHT_BYTES["4bit"])
    )


def test_a_base_that_is_converted_as_it_is_read_stands_beside_its_file() -> None:
    base = model("llama3-8b-r32").base
    assert base.stored == 2
    assert footprint.loading(base, 2.0, "cpu") == 0.58e9 + 2 * base.total
    assert footprint.loading(base, 4.0, "cpu") == 0.58e9 + (4 + 2) * base.total
    assert footprint.loading(base, 2.0, "gpu") == 2 * base.total


def test_a_measured_training_speed_is_forecast_within_a_factor_of_two() -> None:
    """SmolLM2-135M at rank 32, half the tokens supervised: 393 to 421 tokens/s at 406 GFLOP/s."""
    made = model("quickstart", examples=1000, tokens=208.0, target=104.0)
    seconds = made.stage("train@math").seconds - cost.LOAD_SECONDS - made.weights / cost.DISK
    assert 400 / 2 < 1000 * 208 / seconds < 400 * 2


@pytest.mark.parametrize("measured", rates.MEASURED, ids=lambda m: m.source[:28])
def test_a_measured_training_is_forecast_at_its_speed(measured: rates.Measured) -> None:
    cpu = measured.device == "cpu"
    profile, on = ("quickstart", MACHINE) if cpu else ("llama3-8b-r32", cost.DEVICES["h200"])
    changes = [
        f"training.batch_size={round(measured.at_once / measured.row)}",
        "training.max_length=2048",
        *(f"tasks.{task}.method=lora" for task in (() if measured.lean else TASKS)),
        "continual.method=null",
    ]
    rows = {"examples": 1000, "tokens": measured.row, "target": measured.row / 2}
    made = model(profile, on, *changes, **rows)
    params = made.params.phase("math", "training")
    seconds = made.stage("train@math").seconds - cost.LOAD_SECONDS - made.weights / cost.DISK
    speed = 1000 * params.epochs * measured.row / seconds
    assert speed == pytest.approx(measured.speed, rel=0.06)
    (rate,) = made.rates
    assert rate.measured
    assert rate.source == measured.source


def test_the_speed_of_a_card_that_was_not_measured_is_a_guess() -> None:
    known, other = (
        rates.training_rate(cost.DEVICES[n], True, 200, 6400) for n in ("h200", "a100-80gb")
    )
    assert known.measured
    assert not other.measured
    assert (known.share, known.source) == (other.share, other.source)
    assert known.share == pytest.approx(0.204, abs=0.001)
    assert not any(rate.measured for rate in rates.inference(cost.DEVICES["h200"]))


def test_a_pass_of_fewer_tokens_is_slower() -> None:
    whole, small = (
        model("llama3-8b-r32", cost.DEVICES["h200"], f"training.tokens_at_once={n}")
        for n in ("auto", 2000)
    )
    assert whole.stage("train@math").seconds < small.stage("train@math").seconds


def test_every_stage_of_the_pipeline_has_a_cost() -> None:
    made = model("smoke")
    for step in ("calibrate", "mask", "train", "continual", "evaluate_adapters"):
        assert made.stage(f"{step}@math").seconds >= cost.LOAD_SECONDS
    for stage in ("evaluate_base", "merge@concat", "evaluate_merged@concat", "excess@concat"):
        assert made.stage(stage).written > 0
    assert made.stage("report").flops == 0


@pytest.mark.parametrize(
    ("batch", "expected"),
    # Of 1600 rows a batch of 8 is at most the longest sixteenth; one of 800 is half of them.
    [(8, 8 * (40 - 5) + 5), (800, 800 * ((40 + 7 * 20) / 8 - 5) + 5)],
)
def test_the_largest_batch_is_of_the_longest_rows(batch: int, expected: float) -> None:
    lengths = (40.0, *[20.0] * 7, *[10.0] * 8)
    split = Split(1600, 15.0, 4.0, basis="pulled", lengths=lengths, shared=5)
    assert split.largest(batch, 512) == pytest.approx(expected)
    assert split.largest(8, 30) == pytest.approx(8 * (30 - 5) + 5)


def test_half_precision_that_a_device_lacks_doubles_the_base() -> None:
    old = model("llama3-8b-r32", dataclasses.replace(MACHINE, kind="gpu", bfloat16=False))
    new = model("llama3-8b-r32", dataclasses.replace(MACHINE, kind="gpu"))
    assert (old.weights, new.weights) == (4 * old.base.total, 2 * old.base.total)


@pytest.mark.parametrize(
    ("number", "kind", "length", "counted"),
    [(4.0, "gpu", 400, 23_980), (2.0, "cpu", 100, 12_209), (2.0, "cpu", 600, 10_824)],
)
def test_layers_keep_what_the_formula_says(
    number: float, kind: str, length: int, counted: float
) -> None:
    """Counted on layers of SmolLM2's shape: bytes a token and layer."""
    base = dataclasses.replace(model("quickstart").base, layers=1)
    without = dataclasses.replace(base, layers=0)
    section = TrainingSection(batch_size=1)
    one, two = (
        footprint.training(some, section, "lori-d", length, 1e4, number, kind)
        for some in (without, base)
    )
    assert (two - one) / length == pytest.approx(counted, rel=0.02)


def test_a_limit_of_tokens_at_once_lowers_the_memory() -> None:
    whole = model("llama3-8b-r32", H100).stage("train@nlu").memory
    small = model("llama3-8b-r32", H100, "training.tokens_at_once=1024").stage("train@nlu").memory
    least = model("llama3-8b-r32", H100, "training.tokens_at_once=1").stage("train@nlu").memory
    assert least < small < whole < H100.memory  # no example is split


def test_auto_splits_what_a_gpu_cannot_hold_and_a_cpu_nothing() -> None:
    large = ["training.batch_size=2048"]
    assert model("llama3-8b-r32", H100, *large).stage("train@nlu").memory < H100.memory
    here = dataclasses.replace(H100, kind="cpu")
    assert model("llama3-8b-r32", here, *large).stage("train@nlu").memory > H100.memory
    # On a GPU, a pass may hold examples of all batches of a step.
    split = ["training.batch_size=8", "training.gradient_accumulation_steps=4"]
    joined = model("llama3-8b-r32", H100, "training.batch_size=32").stage("train@nlu").memory
    assert model("llama3-8b-r32", H100, *split).stage("train@nlu").memory == joined


def pulled(folder: Path, *settings: str) -> dict[str, Split]:
    """Pull the smoke run's math with settings, and return what a look at it finds."""
    params, _ = params_file.changed(ROOT / "profiles/smoke.yaml", None, list(settings))
    only = params.model_copy(update={"tasks": {"math": params.tasks["math"]}})
    pulling.pull(only, folder)
    return cost.count_splits(only, folder)["math"]


def test_data_that_is_here_is_counted(tmp_path: Path) -> None:
    found = pulled(tmp_path)
    assert {split.basis for split in found.values()} == {"pulled"}
    lines = (tmp_path / "math/train.jsonl").read_text().splitlines()
    assert found["train"].examples == len(lines)
    assert len(found["train"].lengths) == min(200, len(lines))
    assert found["train"].tokens == pytest.approx(sum(found["train"].lengths) / len(lines))


@pytest.mark.parametrize(
    "setting",
    [
        "tasks.math.sizes.train=9",
        "lori.seed=7",
        "tasks.math.source=gsm8k",
        "tasks.math.source=[gsm8k]",
    ],
)
def test_data_of_other_settings_is_not_counted(tmp_path: Path, setting: str) -> None:
    pulled(tmp_path)
    params, _ = params_file.changed(ROOT / "profiles/smoke.yaml", None, [setting])
    found = cost.count_splits(params, tmp_path)["math"]
    assert "pulled" not in {split.basis for split in found.values()}
    assert found["train"].examples == params.tasks["math"].sizes.train


@pytest.mark.parametrize("profile", ["llama3-8b-r32", "mistral-7b-r64"])
def test_a_run_costs_the_same_whatever_data_lies_there(tmp_path: Path, profile: str) -> None:
    params, _ = params_file.changed(ROOT / "params.yaml", profile, [])
    fresh = cost.count_splits(params, tmp_path)
    pulled(tmp_path)
    assert cost.count_splits(params, tmp_path) == fresh
    assert [split.examples for split in fresh["nlu"].values()] == [167_920, 500, 2_000]


def test_splits_that_a_set_lacks_are_carved_from_its_training_examples(tmp_path: Path) -> None:
    """As `lori pull` does; the catalogue says how many there are."""
    changes = ["tasks.math.source=gsm8k", "tasks.math.sizes={train: null, validation: 300}"]
    params, _ = params_file.changed(ROOT / "profiles/smoke.yaml", None, changes)
    found = cost.count_splits(params, tmp_path)["math"]
    assert {name: (split.examples, split.basis) for name, split in found.items()} == {
        "train": (7_173, "published"),
        "validation": (300, "published"),
        "test": (1_319, "published"),
    }


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="device 'h10' is unknown; did you mean"):
        cost.device("h10")


def test_max_steps_replace_epochs_also_where_they_are_more() -> None:
    section = TrainingSection(
        learning_rate=1e-3, batch_size=4, gradient_accumulation_steps=2, epochs=3
    )
    assert examples_seen(section, 100) == 300
    for steps in (2, 1000):
        limited = section.model_copy(update={"max_steps": steps})
        assert examples_seen(limited, 100) == 8 * steps
