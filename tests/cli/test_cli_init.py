"""`lori init`: a project in a folder outside this repository."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.versioning.dvc import code_files, definition
from lori_cli import main, planning
from lori_core.core.errors import InputError
from lori_core.core.stage_dependencies import STAGES
from lori_core.pipeline import params_file
from support import refused, smoke_params

#: DVC reads the steps of networkx's paths by a name that is about to go.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    place = tmp_path / "mine"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def table(path: Path, names: str = "question,answer", count: int = 30) -> None:
    path.write_text(f"{names}\n" + "".join(f'"What\nis {n}?","{n}"\n' for n in range(count)))


def test_a_project_of_ones_own_files_is_planned_and_pulled(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(folder / "a.csv")
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        for n in range(30):
            file.write(json.dumps({"instruction": f"Do {n}", "input": "", "output": "Done"}) + "\n")
    (folder / ".gitignore").write_text("secret")
    argv = ["init", "--base", "random:llama", "--task", "alpha=a.csv", "--task", "beta=b.jsonl.gz"]
    assert main([*argv, "--task", "gamma=bundled-math", "--size", "20"]) == 0
    out = capsys.readouterr().out
    assert "calibrate@alpha" in out
    assert out.endswith("next: lori pull --show 3, then lori run\n")
    params = params_file.load()
    assert params_file.apply(params_file.PARAMS, None, []) == []  # no key that DVC reads is missing
    assert list(params.tasks) == ["alpha", "beta", "gamma"]
    alpha, beta = (params.tasks[name].source.model_dump(exclude_defaults=True)  # type: ignore[union-attr]
                   for name in ("alpha", "beta"))  # fmt: skip
    assert alpha == {
        "kind": "local", "path": "a.csv", "fields": {"prompt": "question", "target": "answer"},
        "split": {"test": 0.1, "validation": 0.1},
    }  # fmt: skip
    assert beta["fields"] == {"prompt": "{instruction}\n\n{input}", "target": "output"}
    assert params.tasks["gamma"].source == "bundled-math"
    assert list(params.merge) == ["concat"]
    ignored = (folder / ".gitignore").read_text().splitlines()
    assert (ignored[0], "/data" in ignored) == ("secret", True)
    added = subprocess.run(["git", "diff", "--cached", "--name-only"], capture_output=True,
                           text=True, check=True).stdout.split()  # fmt: skip
    assert {"params.yaml", "dvc.yaml", "README.md", ".dvc/config", ".gitignore"} <= set(added)

    assert main(["pull", "--set", "lori.seed=7", "--show", "1"]) == 0
    out = capsys.readouterr().out
    assert "lori.seed: 42 -> 7" in out
    assert "alpha: 20 train, 2 validation, 2 test" in out
    assert "alpha, train example 1: " in out
    assert "⟦Done</s>⟧" in out
    assert sorted(path.stem for path in (folder / "code").iterdir()) == sorted(STAGES)
    files = json.loads((folder / "code" / "merge.json").read_text())
    assert "lori_core/merging/merge.py" in files
    assert "lori_core/data/chat.py" not in files


def test_the_stages_depend_on_the_installed_code(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(definition.for_workspace())
    assert code_files.write(folder) == [f"code/: digests of the code of {len(STAGES)} stages"]
    assert code_files.write(folder) == []
    code_files.check(folder, "train")
    (folder / "code" / "train.json").write_text("{}")
    code_files.check(folder, "mask")
    with pytest.raises(InputError, match=r"^code/train.json: is not of the installed version"):
        code_files.check(folder, "train")
    assert code_files.write(folder) == ["code/: digests of the code of 1 stages"]


def test_a_plan_says_what_lori_run_would_write_first(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(definition.for_workspace())
    code_files.write(folder)
    params, pulled = smoke_params(), "data/ was not pulled"
    (folder / "code" / "train.json").write_text("{}")
    assert [line[: len(pulled)] for line in planning.notices(params)] == [pulled]  # nothing has run
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    lacking = definition.for_workspace().replace("        - continual.tasks\n", "", 1)
    (folder / "dvc.yaml").write_text(lacking)
    assert list(planning.notices(params))[1:] == [
        "code/ is of another version of lori: lori run writes it first, and then also runs the "
        "stages whose code changed: train",
        "dvc.yaml is not up to date: lori run writes it first (stages now depend on all that the "
        "installed version's depend on), and then also runs the stages that this changes",
    ]
    assert (folder / "code" / "train.json").read_text() == "{}"
    assert (folder / "dvc.yaml").read_text() == lacking


def test_a_pipeline_that_an_earlier_version_wrote_is_completed(folder: Path) -> None:
    text = definition.for_workspace()
    earlier = "\n".join(
        line
        for line in text.splitlines()
        if line.strip() not in ("- continual.tasks", "- continual.method", "- data/base.json")
    ).replace("        - data/tasks.json\n", "        - data/tasks.json\n        - my-notes.txt\n")
    (folder / "dvc.yaml").write_text(earlier + "\n")
    assert definition.lacking(folder, "merge") == ["continual.tasks"]
    assert definition.lacking(folder, "continual") == ["data/base.json", "continual.method"]
    assert definition.lacking(folder, "report") == []
    params = smoke_params()
    assert definition.follow(folder, params) == [
        "dvc.yaml: stages now depend on all that the installed version's depend on"
    ]
    assert definition.follow(folder, params) == []
    assert definition.lacking(folder, "merge") == []

    def stages(text: str) -> dict[str, Any]:
        return YAML(typ="safe").load(text)["stages"]

    found, expected = stages((folder / "dvc.yaml").read_text()), stages(text)
    for name, stage in expected.items():
        ours, theirs = found[name].get("do", found[name]), stage.get("do", stage)
        for key in {"deps", "params"} & theirs.keys():
            own = [entry for entry in ours[key] if entry != "my-notes.txt"]
            assert sorted(own) == sorted(theirs[key])
    assert "my-notes.txt" in found["merge"]["do"]["deps"]


def test_this_repository_needs_no_digests(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(definition.with_dependencies(definition.pipeline()))
    assert code_files.write(tmp_path) == []
    code_files.check(tmp_path, "train")
    assert not (tmp_path / "code").exists()


def test_a_folder_of_conversations_and_splits_is_recognised(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    (folder / "chat").mkdir()
    for name in ("train", "test"):
        line = json.dumps({"conversations": talk})
        (folder / "chat" / f"{name}.jsonl").write_text(line + "\n")
    assert main(["init", "--base", "random:llama", "--task", "chat=chat"]) == 0
    source = params_file.load().tasks["chat"].source
    assert source.model_dump(exclude_defaults=True) == {  # type: ignore[union-attr]
        "kind": "local", "path": "chat", "messages": "conversations",
    }  # fmt: skip
    assert params_file.load().merge == {}


BAD = {
    "no task": ([], "--task: name at least one task"),
    "no name": (["--task", "a.csv"], "--task 'a.csv': expected NAME=DATA"),
    "twice": (["--task", "a=a.csv", "--task", "a=a.csv"], "a name is given twice"),
    "reserved": (["--task", "merged=a.csv"], "'merged' is the name of a folder of artifacts/"),
    "missing": (["--task", "a=no.csv"], "--task a: no such file or folder, and source 'no.csv' is"),
    "pattern": (["--task", "a=*.tsv"], "no file matches"),
    "columns": (["--task", "a=b.csv"], "b.csv has the columns x, y; say which hold the prompt and"),
    "one": (["--task", "a=b.csv", "--prompt", "x"], "--prompt and --target go together"),
    "column": (["--task", "a=a.csv", "--prompt", "q", "--target", "answer"], "a.csv:2: field 'q'"),
    "base": (["--task", "a=a.csv", "--base", "random:lama"], "random model 'lama' is unknown"),
    "size": (["--task", "a=a.csv", "--size", "0"], "--size"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_answer_is_one_line_and_nothing_is_written(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, message = BAD[name]
    table(folder / "a.csv")
    table(folder / "b.csv", "x,y")
    base = [] if "--base" in argv else ["--base", "random:llama"]
    assert message in refused(capsys, "init", *base, *argv)
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "b.csv"]


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "data.dvc"])
def test_a_folder_with_a_pipeline_is_refused(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(folder / "a.csv")
    (folder / name).write_text("x")
    message = "this folder has a pipeline already; run lori init in another folder"
    assert message in refused(capsys, "init", "--task", "a=a.csv")
    assert sorted(path.name for path in folder.iterdir()) == sorted(["a.csv", name])


def answers(monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    """Let standard input be a terminal with these answers, and then its end."""
    monkeypatch.setattr("sys.stdin", Terminal("".join(f"{answer}\n" for answer in given)))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_answers_on_a_terminal_stand_for_options(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table(folder / "a.csv")
    answers(monkeypatch, "random:llama", "alpha", "a.csv", "beta", "bundled-math", "")
    assert main(["init"]) == 0
    out = capsys.readouterr().out
    assert "name of task 3 [no more]: " in out
    params = params_file.load()
    assert (params.model.name_or_path, list(params.tasks)) == ("random:llama", ["alpha", "beta"])
    assert params.tasks["beta"].source == "bundled-math"


@pytest.mark.parametrize(
    "given", [(), ("random:llama", "alpha"), ("random:llama", "alpha", "a.csv")]
)
def test_answers_that_end_too_early_are_refused(
    given: tuple[str, ...],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table(folder / "a.csv")
    answers(monkeypatch, *given)
    assert "the input ended before all answers" in refused(capsys, "init")
    assert [path.name for path in folder.iterdir()] == ["a.csv"]
