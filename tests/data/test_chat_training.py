"""Chat files of each form: pulled, shown, and trained on for a few steps."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers_like import QWEN

from lori_cli.printing.shown_rows import show
from lori_core import config
from lori_core.config import ModelSection, Params
from lori_core.core.errors import ConfigError, DataError
from lori_core.core.tracking import NullTracker
from lori_core.data.batching import collate
from lori_core.data.packing import pack_batch
from lori_core.methods import tuning
from lori_core.methods.loaded_model import load_model, training_rows
from lori_core.models import base_model
from lori_core.pipeline.stages import pull as pull_stage
from lori_core.training.loss import example_losses

Row = dict[str, Any]


def talks(role: str, content: str, names: tuple[str, str], system: str = "") -> list[list[Row]]:
    """Return 12 conversations of two exchanges."""
    start = [{role: "system", content: system}] if system else []
    return [
        [
            *start,
            {role: names[0], content: f"What is {n}?"},
            {role: names[1], content: f"It is {n}, surely."},
            {role: names[0], content: "And then?"},
            {role: names[1], content: f"Then {n + 1}."},
        ]
        for n in range(12)
    ]


def jsonl(path: Path, column: str, rows: list[list[Row]]) -> None:
    path.write_text("".join(json.dumps({column: row}) + "\n" for row in rows))


def gz(path: Path, column: str, rows: list[list[Row]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({column: row}) + "\n" for row in rows)


def parquet(path: Path, column: str, rows: list[list[Row]]) -> None:
    pq.write_table(pa.Table.from_pylist([{column: row} for row in rows]), path)


def table(path: Path, column: str, rows: list[list[Row]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column])
        writer.writerows([json.dumps(row, indent=1)] for row in rows)


OPENAI = talks("role", "content", ("user", "assistant"))
SYSTEM = talks("role", "content", ("user", "assistant"), "Be kind.")
SHAREGPT = talks("from", "value", ("human", "gpt"))
FORMS: dict[str, tuple[Callable[[Path, str, list[list[Row]]], None], str, str, list[list[Row]]]] = {
    "openai": (jsonl, "c.jsonl", "messages", OPENAI),
    "sharegpt": (gz, "c.jsonl.gz", "conversations", SHAREGPT),
    "system": (parquet, "c.parquet", "messages", SYSTEM),
    "table": (table, "c.csv", "messages", OPENAI),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer has a chat template without generation marks."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(base_model.prepare(ModelSection(name_or_path="random:llama")), folder)
    (folder / "chat_template.jinja").write_text(QWEN.replace("<|im_end|>", "</s>"))
    return folder


def params_of(base: Path, folder: Path, form: str) -> Params:
    write, name, column, rows = FORMS[form]
    write(folder / name, column, rows)
    source = {"kind": "local", "path": str(folder), "files": {"train": name}, "messages": column}
    task = {"source": source, "calibration": {}, "training": {}}
    values = {
        "model": {"name_or_path": str(base), "dtype": "float32"},
        "lori": {"rank": 4, "lora_alpha": 8},
        "training": {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-2, "max_length": 400},
        "tasks": {"chat": task},
    }
    return config.parse(values, "params.yaml")


@pytest.mark.parametrize("form", FORMS)
def test_a_chat_file_is_pulled_shown_and_trained_on(
    form: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    params = params_of(base, tmp_path, form)
    assert pull_stage.pull(params, base)[0].startswith("chat: 10 train, 1 validation, 1 test")
    show(params, base, 1)
    shown = capsys.readouterr().out
    assert shown.count("surely.</s>⟧") == shown.count("⟦It is") == shown.count("⟦Then") == 1
    assert ("Be kind." in shown) == (form == "system")

    session = load_model(params)
    rows, _ = training_rows(session, "chat", params.training)
    batch = collate(rows[:5], session.tokenizer.pad_token_id)
    text = session.tokenizer.decode(batch["labels"][0][batch["labels"][0] >= 0])
    assert text.count("</s>") == 2
    assert "What is" not in text
    with torch.no_grad():
        logits = session.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        plain = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none"
        )
        expected = plain.view(5, -1).sum(dim=1)
        torch.testing.assert_close(
            example_losses(session.model, batch), expected, rtol=1e-5, atol=0
        )
    assert pack_batch(rows[:5])["counts"].tolist() == (batch["labels"] >= 0).sum(dim=1).tolist()

    run = tuning.Tuning("train@chat", "chat", "lori-d", params.phase("chat", "training"))
    trained, result = tuning.tune(session, run, NullTracker())
    assert trained is not None
    assert result is not None


def test_what_the_template_cannot_render_leaves_no_data(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "chat_template.jinja").write_text("{{ messages | length }}" + QWEN)
    params = params_of(other, tmp_path, "openai")
    with pytest.raises(DataError, match=r"c.jsonl:1: the chat template has no generation marks"):
        pull_stage.pull(params, other)
    (other / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"^prompt.template: alpaca, but conversations .messages"):
        pull_stage.pull(params, other)
    assert not (tmp_path / "data").exists()
