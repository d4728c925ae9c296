"""LoRI in PEFT's method comparison: the recipe, the result file, with a tiny model on a CPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.peft_comparison import __main__ as command
from benchmarks.peft_comparison import answers, data, options, schema, training
from benchmarks.peft_comparison.settings import TrainConfig
from lori_core.adapters.adapter import Adapter
from lori_core.adapters.peft_format import peft_file
from lori_core.core.errors import DataError, DivergedError
from lori_core.training.kernels import flat_values
from lori_core.training.loss import sequence_loss

D, S = "lori--random-llama-rank32-d", "lori--random-llama-rank32-s-sparsity0.9"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peft")
    assert command.main(["--tiny", "--learning-rate", "0.01", "--out", str(folder)]) == 0
    return folder


def saved(out: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "results" / f"{name}.json").read_text())
    return content


@pytest.mark.parametrize("name", [D, S])
def test_a_result_has_the_keys_and_types_of_pefts(out: Path, name: str) -> None:
    content = saved(out, name)
    assert schema.faults(content) == []
    assert content["run_info"]["experiment_name"] == name.replace("--", "/")
    assert [row["step"] for row in content["train_info"]["metrics"]] == [2, 4, 4]
    assert content["run_info"]["train_config"].keys() == TrainConfig.__dataclass_fields__.keys()
    assert content["run_info"]["peft_config"]["target_modules"] == ["q_proj", "v_proj"]
    assert content["train_info"]["file_size"] == (
        (out / "adapters" / f"{name}-peft" / "adapter_model.safetensors").stat().st_size
    )


def test_trained_values_and_samples_are_counted(out: Path) -> None:
    dense, sparse = saved(out, D)["train_info"], saved(out, S)["train_info"]
    total = 32 * (64 + 32) * 2  # rank times d_out of q_proj and v_proj, in two layers
    assert dense["num_trainable_params"] == total
    assert sparse["num_trainable_params"] == total - int(total * 0.9)
    assert dense["num_total_params"] == sparse["num_total_params"]
    assert dense["metrics"][-1]["train samples"] == 4 * 2
    assert sparse["metrics"][-1]["train samples"] == 2 * 4 * 2  # with the calibration run
    assert dense["metrics"][-1]["forgetting"] != 0


def test_the_experiments_files_hold_what_differs_from_pefts_defaults(out: Path) -> None:
    folder = out / "experiments" / D.replace("--", "/")
    changed = json.loads((folder / "training_params.json").read_text())
    assert changed["optimizer_kwargs"] == {"lr": 0.01, "weight_decay": 0.1}
    assert changed.keys() == {
        "model_id", "dtype", "batch_size", "batch_size_eval", "max_steps", "eval_steps",
        "optimizer_kwargs", "generation_kwargs",
    }  # fmt: skip
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 32, 64)
    assert config["base_model_name_or_path"] is None
    assert TrainConfig().changed() == {}


def test_the_exported_adapter_is_the_trained_one(out: Path) -> None:
    trained = peft_file.open_adapter(out / "adapters" / S)
    exported = peft_file.open_adapter(out / "adapters" / f"{S}-peft")
    for name in trained.modules:
        assert torch.equal(trained.A(name), exported.A(name))
        assert torch.equal(trained.B(name), exported.B(name))
        assert trained.B(name).count_nonzero() > 0
    parent = peft_file.open_adapter(out / "adapters" / D)
    assert trained.info["parents"] == [parent.info["content_key"]]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda r: r["run_info"].pop("error_msg"), "run_info.error_msg: is missing"),
        (lambda r: r["train_info"].update(own=1), "train_info.own: is not a key of PEFT's results"),
        (
            lambda r: r["train_info"].update(file_size=True),
            "train_info.file_size: expected int, got bool",
        ),
        (
            lambda r: r["train_info"]["metrics"][-1].pop("test accuracy"),
            "train_info.metrics[2].test accuracy: is missing",
        ),
        (
            lambda r: r["run_info"]["peft_config"].pop("peft_type"),
            "run_info.peft_config.peft_type: expected a text",
        ),
        (lambda r: r["train_info"].update(metrics=[]), "train_info.metrics: is empty"),
        (
            lambda r: r["meta_info"]["package_info"].update({"peft-version": 1}),
            "meta_info.package_info.peft-version: expected str or NoneType, got int",
        ),
    ],
)
def test_another_form_is_named(out: Path, change: Any, fault: str) -> None:
    content = saved(out, D)
    change(content)
    assert schema.faults(content) == [fault]


def test_check_says_which_files_differ(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = out / "results" / f"{D}.json", tmp_path / "bad.json"
    bad.write_text("[]")
    assert command.main(["--check", str(good), str(bad)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{good}: in PEFT's form",
        f"{bad}: the file: expected an object, got list",
    ]


@pytest.mark.parametrize(
    ("output", "solution", "right"),
    [
        ("Answer: 4^2 = 16. The answer is: 16", "so\n#### 16", True),
        ("The answer is: 16.00\nNext question", "#### 16", True),
        ("The answer is 20/14.", "#### 10/7", True),
        ("The answer is: $1,000", "#### 1,000", True),
        ("The answer is: 1000", "#### 1,000", False),
        ("The answer is: 50%!", "#### 50", True),
        ("The answer is: 3. The answer is: 4", "#### 4", True),
        ("#### 4 and The answer is 5", "#### 5", True),
        ("The answer is: 1/0", "#### 1", False),
        ("nothing is said", "#### 1", False),
        ("The answer is: NaN", "#### NaN", False),
    ],
)
def test_answers_are_judged_as_by_peft(output: str, solution: str, right: bool) -> None:
    assert answers.is_right(output, solution) is right


def test_a_solution_without_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match="no final answer after '#### ': 'none'"):
        answers.is_right("#### 1", "none")


def test_batches_are_buckets_from_the_longest_row_down() -> None:
    lengths = [1, 5, 3, 2] + [4] * 36 + [9, 7]
    rows = [[n] * length for n, length in enumerate(lengths)]
    order = list(data.batches(rows, 2))
    assert [[len(row) for row in batch] for batch in order] == [
        [5, 4], *[[4, 4]] * 17, [4, 3], [2, 1], [9, 7]
    ]  # fmt: skip
    assert sorted(row[0] for batch in order for row in batch) == list(range(42))


def test_the_loss_is_transformers_own_over_all_tokens() -> None:
    from support import tiny

    model, _, _ = tiny("llama")
    inputs, items = data.padded([[5, 6, 7, 8], [9, 10]], end=2)
    assert inputs["labels"].tolist() == [[5, 6, 7, 8], [9, 10, 2, -100]]
    assert items == 6
    expected = model(
        input_ids=inputs["input_ids"],
        attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        labels=inputs["labels"],
        num_items_in_batch=items,
    ).loss
    torch.testing.assert_close(sequence_loss(model, inputs) / items, expected)


def test_gpu_kernels_between_evaluations_do_not_change_the_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (run,) = options.runs(options.parse(["--tiny", "--methods", "lori-d"], None))
    loaded = command.load(run)
    rows = data.training_ids(run, data.made(run), loaded.tokenizer)
    seen: list[int] = []

    def trained() -> Adapter:
        chosen = training.Training(run, "lori-d", run.train.max_steps)
        adapter, count = training.train(
            chosen, loaded, rows, training.Steps(), lambda model, step: seen.append(step)
        )
        assert count == adapter.count
        return adapter

    plain = trained()
    monkeypatch.setattr(flat_values, "suits", lambda device: True)
    flat = trained()
    assert seen == [2, 4, 2, 4]
    for name in plain.modules:
        torch.testing.assert_close(plain.B(name), flat.B(name), rtol=1e-5, atol=1e-8)


def lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of data sets with a few records."""
    monkeypatch.setenv("LORI_DATASETS", str(tmp_path))
    math = [{"query": f"q{n}", "response": f"r{n}", "type": "GSM_AnsAug"} for n in range(100)]
    math[1]["response"] = "x" * 1298  # 1301 characters with the question and a space
    math[2]["response"] = "x" * 1297
    lines(tmp_path / "metamathqa/train.jsonl", math)
    for split in ("train", "test"):
        texts = [{"question": f"{split}{n}", "answer": f"#### {n}"} for n in range(60)]
        lines(tmp_path / f"gsm8k/{split}.jsonl", texts)
    lines(tmp_path / "finewiki/train.jsonl", [{"text": f"text {n}"} for n in range(102)])
    return tmp_path


def test_data_is_filtered_and_chosen_as_by_peft(sets: Path) -> None:
    (run,) = options.runs(
        options.parse(["--tiny", "--methods", "lori-d", "--base", "random:llama"], None)
    )
    texts = data.read(data.paths(), run)
    questions = [query for query, _ in texts.train]
    assert questions == ["q0", *(f"q{n}" for n in range(2, 41))]  # one bucket of 20 batches of 2
    order = np.arange(60)
    np.random.RandomState(0).shuffle(order)
    assert [q for q, _ in texts.validation] == [f"train{n}" for n in order[:2]]
    assert len(texts.test) == 60
    assert texts.articles == [f"text {n}" for n in range(100)]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert command.main([*argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_missing_files_are_all_named(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sets / "metamathqa/train.jsonl").unlink()
    (sets / "finewiki/train.jsonl").unlink()
    line = refused(capsys, "--base", "random:llama", "--out", str(sets / "out"))
    assert line.startswith("error: LORI_DATASETS: missing MetaMathQA (")
    assert "metamathqa/MetaMathQA-395K.json), FineWiki (" in line
    assert not (sets / "out").exists()


def test_too_few_records_are_refused(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--base", "random:llama", "--steps", "25", "--out", str(sets / "out"))
    assert "99 records of at most 1300 characters, but the steps need 100" in line


def test_a_record_without_a_field_is_refused(
    sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(sets / "gsm8k/test.jsonl", [{"question": "?"}])
    line = refused(capsys, "--base", "random:llama", "--steps", "2", "--out", str(sets / "out"))
    assert line.endswith("test.jsonl:1: expected an object with the texts question, answer")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "--base: is missing"),
        (["--tiny", "--rank", "0"], "--rank: input should be greater than 0, got 0"),
        (["--tiny", "--sparsity", "1"], "--sparsity: input should be less than 1, got 1.0"),
        (["--tiny", "--learning-rate", "nan"], "--learning-rate: "),
        (["--tiny", "--target-modules", "x_proj"], "'x_proj' matches no"),
        (
            ["--tiny", "--base", "meta-llama/Llama-3.2-3B"],
            "model.revision: a hub model needs its commit",
        ),
        (["--tiny", "--base", "no/such/folder"], "no/such/folder"),
    ],
)
def test_bad_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    assert text in refused(capsys, *argv, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DivergedError("step 3: the loss is nan"), "step 3: the loss is nan"),
        (torch.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory."),
    ],
)
def test_a_method_that_fails_does_not_keep_the_next_from_running(
    error: Exception,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = []

    def run(chosen: Any, *_: Any) -> None:
        ran.append(chosen.method)
        if chosen.method == "lori-d":
            raise error

    monkeypatch.setattr(command, "run", run)
    code = command.main(["--tiny", "--methods", "lori-d", "lori-s", "--out", str(tmp_path)])
    assert (code, ran) == (1, ["lori-d", "lori-s"])
    assert said in capsys.readouterr().err


def test_foreign_files_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "adapters" / D / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    line = refused(capsys, "--tiny", "--out", str(tmp_path))
    assert "name another folder with --out" in line
    assert mine.read_text() == "mine"
