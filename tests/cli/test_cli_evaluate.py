"""`lori evaluate`: which model, which examples, and what is refused before anything is loaded."""

import json
import shutil
from pathlib import Path

import pytest

from lori_cli import main
from lori_core.adapters import adapter_file
from lori_core.adapters.peft_format import peft_file
from lori_core.data.sources import pulling
from lori_core.pipeline import params_file
from support import random_adapter, refused

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    adapter_file.save(random_adapter(), tmp_path / "ours")
    peft_file.export_peft(random_adapter(key="code", seed=2), tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ours_and_pefts_are_scored_without_a_workspace(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", "ours", "theirs", "--tasks", "bundled-nlu", "--limit", "3"]
    assert main([*argv, "--likelihood", "-o", "out"]) == 0
    shown = capsys.readouterr().out
    assert "lori track" not in shown
    scores = json.loads((folder / "out" / "results.json").read_text())["scores"]
    assert list(scores) == ["base", "ours", "theirs"]
    assert all(row["bundled-nlu"]["n"] == 3 for row in scores.values())
    assert all("likelihood" in row["bundled-nlu"] for row in scores.values())
    assert not (folder / ".lori").exists()


def test_a_workspace_gives_model_data_and_tracking(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    pulling.pull(params_file.load())
    argv = ["evaluate", "--tasks", "math", "--limit", "2", "--split", "validation"]
    assert main(argv) == 0
    assert "lori track sends the scores" in capsys.readouterr().out
    (rows,) = (folder / ".lori" / "rows" / "evaluate").glob("*.jsonl")
    kinds = [json.loads(line)["type"] for line in rows.read_text().splitlines()]
    assert kinds == ["start", "params", "metrics", "artifact", "end"]
    assert (folder / "evaluation" / "base" / "math.jsonl").is_file()


def test_data_that_was_pulled_with_other_settings_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    pulling.pull(params_file.load())
    for change in ("tasks.math.source=bundled-nlu", "tasks.math.sizes.test=7", "lori.seed=7"):
        said = refused(capsys, "evaluate", "--tasks", "math", "--set", change)
        assert "--tasks: math: data/math was pulled with other settings than" in said
        assert "run lori pull" in said
    assert not (folder / "evaluation").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--tasks", "math"], "no adapter and no params.yaml here"),
        (["ours", "--tasks", "bundled-mth"], "task 'bundled-mth' is unknown; did you mean 'bundl"),
        (
            ["ours", "--tasks", "bundled-nlu", "--limit", "0"],
            "--limit: '0'; allowed are whole numbers from 1",
        ),
        (["ours", "--tasks", "bundled-nlu", "--protocols", "papr"], "evaluation.protocols"),
        (["ours", "--tasks", "bundled-nlu", "--include-path", "x"], "--include-path: only with"),
        (["--tasks", "bundled-nlu", "--no-base"], "there is nothing to evaluate"),
        (
            ["ours", "--tasks", "bundled-safety", "--attacks", "roleplay"],
            "--attacks: attack 'roleplay' is unknown; did you mean 'role-play'",
        ),
        (
            ["ours", "--tasks", "bundled-nlu", "--attacks", "base64"],
            "--attacks: no harmful request in bundled-nlu",
        ),
        (
            ["ours", "--tasks", "bundled-safety", "--attacks", "base64", "--protocols", "paper"],
            "--attacks: only under the protocol fixed",
        ),
        (["nowhere", "--tasks", "bundled-nlu"], "nowhere: no adapter here"),
        (["ours", "ours", "--tasks", "bundled-nlu"], "an adapter is named twice"),
        (["ours", "--tasks", "humaneval", "--split", "train"], "humaneval: has no train examples"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert message in refused(capsys, "evaluate", *argv)
    assert not (folder / "evaluation").exists()


def test_the_data_that_is_read_is_never_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORI_DATASETS", str(folder / "sets"))
    row = json.dumps({"question": "1 + 1?", "answer": "#### 2"}) + "\n"
    for file in ("sets/gsm8k/test.jsonl", "elsewhere/test.jsonl", "tasks/deep/own.yaml"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(row)
    before = sorted(folder.rglob("*"))
    for out, data in (("sets/gsm8k", "gsm8k"), ("sets/gsm8k/out", "gsm8k"), ("sets", "gsm8k")):
        argv = ["ours", "--tasks", "bundled-nlu,gsm8k-files", "--limit", "1", "-o", out]
        for more in ([], ["--force"]):
            found = refused(capsys, "evaluate", *argv, *more)
            assert f"the input {folder / 'sets' / data}; name another folder" in found
    argv = ["ours", "--tasks", "own", "--harness", "lm-eval", "--include-path", "tasks"]
    found = refused(capsys, "evaluate", *argv, "-o", "tasks/deep", "--force")
    assert "tasks/deep: holds the input tasks/deep/own.yaml" in found
    (folder / "sets/gsm8k/test.jsonl").unlink()
    (folder / "sets/gsm8k/test.jsonl").symlink_to(folder / "elsewhere/test.jsonl")
    argv = ["ours", "--tasks", "gsm8k-files", "--limit", "1", "-o", "elsewhere", "--force"]
    assert "elsewhere: holds the input" in refused(capsys, "evaluate", *argv)
    assert sorted(folder.rglob("*")) == before


def test_adapters_of_two_bases_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter_file.save(random_adapter("mistral"), folder / "other")
    assert main(["evaluate", "ours", "other", "--tasks", "bundled-nlu", "--limit", "1"]) == 2
    assert "use that base" in capsys.readouterr().err
    assert not (folder / "evaluation").exists()


def test_sources_lists_what_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["gsm8k-files", "number"] for line in lines)
