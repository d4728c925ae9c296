import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lori_core import config
from lori_core.core.errors import ConfigError, DataError, InputError
from lori_core.data import pulled
from lori_core.data.sources import made_sets, pulling, readers
from lori_core.data.sources.catalogue import CATALOGUE
from lori_core.data.sources.formats import convert


def params(source: Any, sizes: dict[str, int] | None = None) -> config.Params:
    task = {"source": source, "sizes": sizes or {}, "calibration": {}, "training": {}}
    values = {
        "model": {"name_or_path": "random:llama"},
        "lori": {},
        "training": {},
        "tasks": {"task": task},
    }
    return config.parse(values, "params.yaml")


def local(path: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "local", "path": str(path), **more}


def write(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def example(number: int) -> dict[str, str]:
    return {"prompt": f"question {number}", "target": f"answer {number}"}


def read(folder: Path, split: str) -> list[str]:
    return [example.prompt for example in pulled.read_examples("task", split, folder)]


def test_pulling_twice_gives_the_same_bytes_and_touches_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in" / "train.jsonl", [example(i) for i in range(50)])
    run = params(local(tmp_path / "in"), {"train": 20, "validation": 5, "test": 5})
    out = tmp_path / "data"
    assert pulling.pull(run, out) == [
        "task: 20 train, 5 validation, 5 test (0 duplicates, 0 leaks removed)"
    ]
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()}
    assert pulling.pull(run, out) == []
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()} == (
        before
    )
    assert len(before) == 4


def pull_of(folder: Path, source: dict[str, Any] | None = None, **splits: list[Any]) -> Any:
    """Pull rows; return what was said, and the entry of the manifest."""
    for split, rows in splits.items():
        write(folder / "in" / f"{split}.jsonl", rows)
    (said,) = pulling.pull(params(local(folder / "in", **(source or {}))), folder / "data")
    return said, json.loads((folder / "data" / "manifest.json").read_text())["tasks"]["task"]


def test_splits_share_no_prompt_and_what_is_removed_is_counted(tmp_path: Path) -> None:
    other = {"prompt": " Question  4", "target": "another answer"}
    leaked = {"prompt": "QUESTION 9", "target": "another answer"}
    said, manifest = pull_of(
        tmp_path,
        train=[*map(example, range(10)), example(3), other, example(3), leaked],
        validation=[example(7), example(20)],
        test=[example(8), example(9), example(20), example(20)],
    )
    assert said == "task: 8 train, 1 validation, 3 test (3 duplicates, 5 leaks removed)"
    out = tmp_path / "data"
    assert sorted(read(out, "test")) == ["question 20", "question 8", "question 9"]
    assert read(out, "validation") == ["question 7"]
    assert sorted(read(out, "train")) == ["Question  4", *(f"question {n}" for n in range(7))]
    assert manifest["duplicates_removed"] == {"train": 2, "validation": 0, "test": 1}
    assert manifest["leaks_removed"] == {"train": 4, "validation": 1, "test": 0}
    assert (manifest["contradictions"], manifest["without_target"]) == (0, 0)
    assert manifest["splits"]["test"]["count"] == 3
    assert manifest["sources"][0]["sha256"].keys() == {
        f"{split}.jsonl" for split in ("train", "validation", "test")
    }


def test_a_prompt_with_two_answers_is_trained_on_both(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "target": f"{side} {n}"} for n in range(50) for side in "ab"]
    said, _ = pull_of(tmp_path, train=rows, validation=[example(1)], test=[example(2)])
    assert said == "task: 100 train, 1 validation, 1 test (0 duplicates, 0 leaks removed)"
    found = pulled.read_examples("task", "train", tmp_path / "data")
    assert {(e.prompt, e.target) for e in found} == {(r["prompt"], r["target"]) for r in rows}


GRADED = {"fields": {"prompt": "prompt", "target": "target", "answer": "gold"}, "scorer": "number"}


def graded(prompt: str, gold: str, target: str = "") -> dict[str, str]:
    return {"prompt": prompt, "target": target, "gold": gold}


def test_a_prompt_with_two_gold_answers_stays_in_the_test_set_and_is_said(tmp_path: Path) -> None:
    test = [graded("a", "1"), graded("A", "1"), graded("b", "1"), graded("b", "2")]
    said, manifest = pull_of(
        tmp_path, GRADED, train=[graded("t", "1", "x")], validation=[graded("v", "1")], test=test
    )
    assert said == (
        "task: 1 train, 1 validation, 3 test (1 duplicates, 0 leaks removed); prompts to test that "
        "have more than one answer: 1"
    )
    assert manifest["contradictions"] == 1
    found = pulled.read_examples("task", "test", tmp_path / "data")
    assert sorted((e.prompt, e.answer) for e in found) == [("a", "1"), ("b", "1"), ("b", "2")]


def test_what_is_only_trained_on_is_one_example_whatever_its_answer(tmp_path: Path) -> None:
    train = [graded("t", "1", "x"), graded("t", "2", "x"), graded("t", "2", "X")]
    said, _ = pull_of(
        tmp_path, GRADED, train=train, validation=[graded("v", "1")], test=[graded("w", "1")]
    )
    assert said == "task: 2 train, 1 validation, 1 test (1 duplicates, 0 leaks removed)"


def test_examples_without_a_target_are_counted(tmp_path: Path) -> None:
    rows: list[Any] = [example(1), {"prompt": "a", "target": None}, {"prompt": "b", "target": " "}]
    held: Any = {"validation": [example(2)], "test": [{"prompt": "c", "target": None}]}
    said, manifest = pull_of(tmp_path, train=rows, **held)
    assert said == (
        "task: 3 train, 1 validation, 1 test (0 duplicates, 0 leaks removed); without a target, so "
        "not trained on: 2"
    )
    assert manifest["without_target"] == 2
    with pytest.raises(DataError, match=r"^tasks.task.source: no train example has a target to l"):
        pull_of(tmp_path, train=rows[1:], **held)


def test_a_split_that_leaks_whole_is_refused(tmp_path: Path) -> None:
    rows = [example(n) for n in range(3)]
    message = (
        r"no train examples in any of its sources; the prompts of all 3 stand in another split, too"
    )
    with pytest.raises(DataError, match=message):
        pull_of(tmp_path, train=rows, validation=rows, test=rows)
    assert not (tmp_path / "data").exists()


def test_a_task_that_is_gone_takes_its_data_along(tmp_path: Path) -> None:
    write(tmp_path / "in" / "train.jsonl", [example(i) for i in range(5)])
    (tmp_path / "data" / "old").mkdir(parents=True)
    said = pulling.pull(params(local(tmp_path / "in")), tmp_path / "data")
    assert said[-1] == "old: removed, no longer a task"
    assert not (tmp_path / "data" / "old").exists()


def test_what_no_pull_wrote_stays_in_the_data_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(tmp_path / "in" / "train.jsonl", [example(i) for i in range(5)])
    source = local(tmp_path / "in")
    pulling.pull(params(source), data)
    (data / "task").rename(data / "former")  # as if its name had been another
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["tasks"]["former"] = manifest["tasks"].pop("task")
    (data / "manifest.json").write_text(json.dumps(manifest))
    for name in ("former/notes.txt", "own/train.jsonl", "former/extra/a.jsonl"):
        write(data / name, ["mine"])
    (data / "former" / "test.jsonl").write_text("changed by hand")
    (data / "linked").symlink_to(tmp_path / "in")
    said = pulling.pull(params(source), data)
    assert said[-1] == "former: no longer a task; files that lori pull did not write stay"
    assert sorted(p.relative_to(data).as_posix() for p in data.rglob("*.*")) == [
        "former/extra/a.jsonl",
        "former/notes.txt",
        "former/test.jsonl",
        "manifest.json",
        "own/train.jsonl",
        "task/test.jsonl",
        "task/train.jsonl",
        "task/validation.jsonl",
    ]
    assert (tmp_path / "in" / "train.jsonl").is_file()
    assert pulling.pull(params(source), data) == []


def test_a_file_that_no_pull_wrote_is_not_replaced(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(tmp_path / "in" / "train.jsonl", [example(i) for i in range(5)])
    write(data / "task" / "test.jsonl", ["mine"])
    with pytest.raises(DataError, match=r"task/test\.jsonl: lori pull did not write it"):
        pulling.pull(params(local(tmp_path / "in")), data)
    assert [path.name for path in data.rglob("*.*")] == ["test.jsonl"]
    (data / "task" / "test.jsonl").unlink()
    pulling.pull(params(local(tmp_path / "in")), data)
    (data / "manifest.json").unlink()  # a pull that was killed before it wrote this
    assert pulling.pull(params(local(tmp_path / "in")), data) == []


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("data/task", {}),
        ("data/task/train.jsonl", {}),
        ("data", {"train": "task/train.jsonl"}),
        ("data/former/..", {"test": ["x.jsonl", "former/train.jsonl"]}),
    ],
)
def test_a_source_that_pull_would_write_over_is_refused(
    tmp_path: Path, path: str, files: dict[str, Any]
) -> None:
    data = tmp_path / "data"
    for name in ("task", "former"):
        write(data / name / "train.jsonl", [example(i) for i in range(5)])
    write(data / "manifest.json", [])
    (data / "manifest.json").write_text('{"tasks": {"former": {"sources": [], "splits": {}}}}')
    with pytest.raises(ConfigError, match=r"tasks\.task\.source\.path: .* which lori pull writes"):
        pulling.pull(params(local(tmp_path / path, files=files)), data)
    assert len(list(data.rglob("*.*"))) == 3


def test_fields_are_mapped_and_templates_filled(tmp_path: Path) -> None:
    record = {"q": "Two and two?", "context": "Sums.", "a": "4", "gold": "4"}
    (tmp_path / "set.json").write_text(json.dumps([record, record | {"q": "One and one?"}]))
    source = local(
        tmp_path,
        files={"train": "set.json"},
        fields={"prompt": "{context} {q}", "target": "a", "answer": "{gold}"},
        scorer="number",
        subset="sums",
    )
    out = tmp_path / "data"
    pulling.pull(params(source, {"test": 1}), out)
    (test,) = pulled.read_examples("task", "test", out)
    assert test.prompt in ("Sums. Two and two?", "Sums. One and one?")
    assert (test.target, test.answer, test.scorer, test.kind) == ("4", "4", "number", "sums")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a", "target": "b"}\n{"prompt": ', r"train.jsonl:2: not valid JSON"),
        ("", r"train.jsonl: the file is empty"),
        ("\n\n", r"train.jsonl: the file is empty"),
        ('{"prompt": "a"}\n', r"train.jsonl:1: field 'target' for 'target' is missing"),
        ("[1]\n", r"train.jsonl:1: expected a JSON object, got list"),
        ('{"prompt": " ", "target": "b"}\n', r"train.jsonl:1: the prompt is empty"),
    ],
)
def test_a_broken_file_is_refused_by_line_and_nothing_is_written(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        pulling.pull(params(local(tmp_path / "in")), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gsm9k", r"tasks.task.source: source 'gsm9k' is unknown; did you mean 'gsm8k'"),
        ({"kind": "bundled", "name": "maths"}, r"bundled set 'maths' is unknown; did you mean"),
        ({"kind": "local"}, r"tasks.task.source.path: a local source needs a folder or file"),
        ({"kind": "local", "path": "/no/such"}, r"/no/such: no such file or folder"),
        ({"kind": "local", "path": "$NOT_SET_HERE/x"}, r"variable NOT_SET_HERE is not set"),
        (
            {"kind": "local", "path": __file__, "files": {"test": "a.json"}},
            r"tasks.task.source.files: .*test_pulling.py is one file; name its folder in tasks.tas",
        ),
        ({"kind": "hub"}, r"tasks.task.source.name: a hub source needs"),
        ({"kind": "local", "path": ".", "format": "gsm"}, r"format 'gsm' is unknown; did you mean"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(source: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        pulling.pull(params(source), tmp_path / "data")


def headless(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> Any:
    """Read a hub set of CSV files without headers, with the download replaced by a folder."""
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info", lambda *_, **__: SimpleNamespace(sha="a" * 40)
    )
    found = pulling.read_source("hex-phi", "test", None, 1)
    wanted = {"repo_type": "dataset", "revision": "a" * 40, "allow_patterns": "*.csv"}
    assert asked == [("LLM-Tuning-Safety/HEx-PHI", wanted)]
    return found


def test_headless_csv_files_of_the_hub_are_read_as_one_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = headless(tmp_path, monkeypatch, b='"Do, ""this""\nnow."\n', a="Do that.\nAnd that.\n")
    assert sorted(example.prompt for example in test) == [
        "And that.",
        "Do that.",
        'Do, "this"\nnow.',
    ]
    assert {(example.answer, example.scorer) for example in test} == {("refuse", "refusal")}


def test_a_headless_file_of_other_columns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"a.csv: record 2 has 2 columns, expected 1 \(prompt\); it begins at line 4"
    with pytest.raises(DataError, match=message):
        headless(tmp_path, monkeypatch, a='"One,\ntwo."\n\nTwo,three\n')


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('"One,\n\ntwo."\n\nx\0\n', r"a.csv:5: field 'prompt' for 'prompt': character 2 is null"),
        ('"One,\ntwo."\n ', r"a.csv:3: the prompt is empty"),
        ("x" * (17 << 20), r"a.csv:1: not a CSV file in UTF-8 \(field larger than field limit"),
    ],
)
def test_a_record_of_a_headless_file_is_named_by_the_line_it_begins_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    with pytest.raises(DataError, match=rf"LLM-Tuning-Safety/HEx-PHI/{fault}"):
        headless(tmp_path, monkeypatch, a=text)


def test_a_hub_set_without_the_named_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"no file of the data set is called \*.csv"):
        headless(tmp_path, monkeypatch)


def test_a_ready_made_source_needs_the_files_of_the_split_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORI_DATASETS", str(tmp_path))
    row = {"instruction": "Which?", "output": "the correct answer is answer1", "answer": "answer1"}
    folder = tmp_path / "nlu" / "piqa"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text(json.dumps([row, row, row | {"instruction": "What?"}]))
    found = pulling.read_source("piqa-files", "test", None, 1)
    assert sorted(example.prompt for example in found) == ["What?", "Which?"]
    assert len(pulling.read_source("piqa-files", "test", 1, 1)) == 1
    (folder / "train.json").write_text("not JSON")
    assert pulling.read_source("piqa-files", "test", None, 1) == found
    with pytest.raises(DataError, match=r"^piqa-files: has no validation examples \(it has: train"):
        pulling.read_source("piqa-files", "validation", None, 1)
    (folder / "test.json").unlink()
    with pytest.raises(DataError, match=r"piqa-files.files: .*test.json: no such file"):
        pulling.read_source("piqa-files", "test", None, 1)


def test_a_ready_made_source_of_the_hub_gives_the_split_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def load(name: str, config: str | None, *, split: str, revision: str) -> list[Any]:
        asked.append((name, config, split, revision))
        return [{"question": f"q{n}", "answer": f"{n}\n#### {n}"} for n in range(3)]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info", lambda *_, **__: SimpleNamespace(sha="a" * 40)
    )
    assert len(pulling.read_source("gsm8k", "test", None, 1)) == 3
    with pytest.raises(DataError, match=r"^gsm8k: has no validation examples \(it has: train, tes"):
        pulling.read_source("gsm8k", "validation", None, 1)
    assert asked == [("openai/gsm8k", "main", "test", "a" * 40)]


def drawn_from_the_hub(monkeypatch: pytest.MonkeyPatch, rows: list[Any]) -> tuple[Any, list[Any]]:
    """Return what a hub source of these rows gives, and a list of the rows drawn so far."""
    drawn: list[Any] = []

    def load(name: str, config: str | None, *, split: str, revision: str) -> Iterator[Any]:
        assert (name, config, split, revision) == ("owner/set", None, "train", "b" * 40)
        for row in rows:
            drawn.append(row)
            if isinstance(row, Exception):
                raise row
            yield row

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    source = config.SourceSection(kind="hub", name="owner/set", revision="b" * 40)
    return readers.READERS["hub"](source, config.Sizes(), 0, "here", None).rows, drawn


def test_a_hub_set_is_drawn_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, drawn = drawn_from_the_hub(monkeypatch, [example(i) for i in range(3)])
    assert not drawn
    split, first = next(rows)
    assert (split, first.prompt, len(drawn)) == ("train", "question 0", 1)
    assert [found.prompt for _, found in rows] == ["question 1", "question 2"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (OSError("gone\nmore"), r"^here: owner/set: gone \(for a gated set"),
        ({"prompt": "a"}, r"^owner/set\[train\]:2: field 'target' for 'target' is missing"),
    ],
)
def test_a_hub_set_that_breaks_off_is_named(
    monkeypatch: pytest.MonkeyPatch, second: Any, message: str
) -> None:
    rows, _ = drawn_from_the_hub(monkeypatch, [example(0), second])
    next(rows)
    with pytest.raises(DataError, match=message):
        next(rows)


def test_gsm8k_gets_the_marker_and_the_answer() -> None:
    record = {"question": "How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 1,007"}
    converted = convert(record, CATALOGUE["gsm8k"], "here")
    assert converted.prompt == (
        "How many?\nAnswer the above question. First think step by step and then answer the final "
        "number.\n"
    )
    assert converted.target.endswith("\nThe final answer is: 1,007")
    assert (converted.answer, converted.scorer) == ("1,007", "number")


def test_humaneval_comes_out_of_its_package(tmp_path: Path) -> None:
    source = [
        {"kind": "bundled", "name": "code", "limit": {"test": 20}},
        {"kind": "bundled", "name": "humaneval", "limit": {"test": 7}},
    ]
    run = params(source, {"train": 30, "validation": 5, "test": 27})
    run.tasks["task"].sizes.model_dump()
    pulling.pull(run, tmp_path)
    test = pulled.read_examples("task", "test", tmp_path)
    assert len(test) == 27
    kinds = [example.kind for example in test]
    assert kinds.count("humaneval") >= 1
    found = next(example for example in test if example.kind == "humaneval")
    assert found.prompt.startswith("Complete this Python function:\n\n")
    assert "def check(candidate)" in found.check["tests"]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    code, humaneval = manifest["tasks"]["task"]["sources"]
    assert (code["license"], code["gives"]) == ("Apache-2.0", ["test", "train", "validation"])
    assert (humaneval["license"], humaneval["gives"]) == ("MIT", ["test"])


@pytest.mark.parametrize("name", ["nlu", "math", "code", "safety"])
def test_bundled_tasks_give_what_is_asked(name: str, tmp_path: Path) -> None:
    sizes = {"train": 60, "validation": 10, "test": 20}
    pulling.pull(params(f"bundled-{name}", sizes), tmp_path)
    for split, count in sizes.items():
        assert len(pulled.read_examples("task", split, tmp_path)) == count


@pytest.mark.parametrize("name", ["nlu", "math", "code", "safety"])
def test_all_of_a_bundled_set_is_kept(name: str, tmp_path: Path) -> None:
    sizes = {"train": 1000, "validation": 200, "test": 500}
    assert pulling.pull(params(f"bundled-{name}", sizes), tmp_path) == [
        "task: 1000 train, 200 validation, 500 test (0 duplicates, 0 leaks removed)"
    ]


def of_seed(seed: int, folder: Path) -> dict[str, set[str]]:
    """Return the prompts that a bundled task gets, by split."""
    run = params("bundled-math", {"train": 30, "validation": 5, "test": 9})
    run = run.model_copy(update={"lori": run.lori.model_copy(update={"seed": seed})})
    pulling.pull(run, folder)
    return {split: set(read(folder, split)) for split in ("train", "validation", "test")}


def test_a_seed_does_not_choose_the_examples_of_a_bundled_set(tmp_path: Path) -> None:
    assert of_seed(1, tmp_path / "1") == of_seed(2, tmp_path / "2")


def test_a_smaller_size_takes_the_first_of_a_larger_one() -> None:
    def prompts(name: str, size: int) -> list[str]:
        sizes = dict.fromkeys(("train", "validation", "test"), size)
        return [row.prompt for row in dict(made_sets.SOURCES[name].examples(sizes, 0))["train"]]

    for name in ("bundled-nlu", "bundled-math", "bundled-code", "bundled-safety"):
        assert prompts(name, 0) == []
        assert prompts(name, 7) == prompts(name, 200)[:7]


@pytest.mark.parametrize(
    ("sizes", "limit", "said"),
    [
        ({"train": 1001}, {}, "1001 train examples were asked for, but there are 1000"),
        ({"validation": 201}, {}, "201 validation examples were asked for, but there are 200"),
        ({"test": 10}, {"test": 501}, "501 test examples were asked for, but there are 500"),
    ],
)
@pytest.mark.parametrize("name", ["nlu", "math", "code", "safety"])
def test_more_than_a_bundled_set_has_is_refused_before_anything_is_written(
    name: str, sizes: dict[str, int], limit: dict[str, int], said: str, tmp_path: Path
) -> None:
    source = {"kind": "bundled", "name": name, "limit": limit}
    with pytest.raises(InputError) as caught:
        pulling.pull(params(source, sizes), tmp_path / "data")
    assert str(caught.value) == f"tasks.task.source: bundled-{name}: {said}; lower the size"
    assert not (tmp_path / "data").exists()


def test_a_limit_of_a_bundled_set_is_what_is_read() -> None:
    def count(limit: int | None) -> int:
        return len(pulling.read_source("bundled-math", "test", limit, 1))

    assert [count(limit) for limit in (None, 7, 300, 5000)] == [100, 7, 300, 500]
    first = {row.prompt for row in pulling.read_source("bundled-math", "test", None, 1)}
    assert {row.prompt for row in pulling.read_source("bundled-math", "test", 50, 1)} < first


def test_a_limit_of_0_takes_nothing_of_a_bundled_set(tmp_path: Path) -> None:
    write(tmp_path / "in" / "train.jsonl", [example(i) for i in range(50)])
    none = {"kind": "bundled", "name": "math", "limit": {"train": 0, "validation": 0}}
    source = [local(tmp_path / "in", limit={"test": 0, "validation": 0}), none]
    run = params(source, {"train": 10000, "test": 20})
    assert pulling.pull(run, tmp_path / "data")[0].startswith(
        "task: 45 train, 5 validation, 20 test"
    )


def hub(**more: Any) -> dict[str, Any]:
    return {"kind": "hub", "name": "owner/set", "files": {"test": "test", "train": "train"}, **more}


def pulled_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, folder: Path, newest: str, **sources: Any
) -> dict[str, str]:
    """Pull tasks whose hub's newest commit is `newest`; return the commit of each task's source."""

    def load(name: str, config: str | None, *, split: str, revision: str) -> list[Any]:
        return [example(n) for n in (range(20) if split == "train" else range(20, 30))]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info", lambda *_, **__: SimpleNamespace(sha=newest * 40)
    )
    values = params("bundled-math").model_dump()
    values["tasks"] = {
        name: {"source": source, "calibration": {}, "training": {}}
        for name, source in sources.items()
    }
    run = config.parse(values, "params.yaml")
    pulling.pull(run, folder)
    assert all(pulling.is_pulled(run, task, folder) for task in sources)
    entries = json.loads((folder / "manifest.json").read_text())["tasks"]
    return {task: entry["sources"][0]["revision"][0] for task, entry in entries.items()}


def test_a_commit_is_pinned_for_the_source_that_left_it_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def pull(newest: str, **sources: Any) -> dict[str, str]:
        return pulled_from_the_hub(monkeypatch, tmp_path, newest, **sources)

    old = hub(revision="0" * 40)
    assert pull("1", b=hub(), a=old) == {"b": "1", "a": "0"}
    assert pull("2", b=hub(), a=old) == {"b": "1", "a": "0"}
    # A source that is defined otherwise is another source, and one that had a revision has no pin.
    assert pull("3", b=hub(subset="s"), a=old) == {"b": "3", "a": "0"}
    assert pull("4", a=hub(subset="x"), b=old) == {"b": "0", "a": "4"}
    assert pull("5", a=hub(subset="x"), b=hub()) == {"b": "5", "a": "4"}


def test_pulled_data_that_the_settings_do_not_ask_for_is_refused(tmp_path: Path) -> None:
    run = params("bundled-math", {"train": 20, "validation": 5, "test": 9})
    pulling.check_pulled(run, "task", tmp_path, "--tasks")  # no pull wrote it
    pulling.pull(run, tmp_path)
    pulling.check_pulled(run, "task", tmp_path, "--tasks")
    others = [
        params("bundled-nlu", {"train": 20, "validation": 5, "test": 9}),
        params("bundled-math", {"train": 20, "validation": 5, "test": 8}),
        run.model_copy(update={"lori": run.lori.model_copy(update={"seed": 7})}),
    ]
    for other in others:
        with pytest.raises(InputError, match=r"^--tasks: task: .* was pulled with other settings"):
            pulling.check_pulled(other, "task", tmp_path, "--tasks")
        pulling.check_pulled(other, "another", tmp_path, "--tasks")


FILES = Path(os.environ.get("LORI_DATASETS", "../shared/datasets"))


@pytest.mark.datasets
@pytest.mark.skipif(not FILES.is_dir(), reason=f"no data sets in {FILES} (set LORI_DATASETS)")
@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("gsm8k-files", "train", 7473),
        ("gsm8k-files", "test", 1319),
        ("boolq-files", "train", 9427),
        ("openbookqa-files", "test", 500),
        ("arc-easy-files", "train", 2251),
        ("arc-challenge-files", "train", 1119),
        ("codealpaca-files", "train", 2017),
        ("saferpaca-safety-files", "train", 2483),
        ("malicious-instructions-files", "test", 100),
        ("harmless-instructions-files", "test", 50),
        ("xstest-files", "test", 450),
        ("harmbench-files", "validation", 80),
        ("harmbench-files", "test", 320),
    ],
)
def test_the_public_files_are_read_whole(
    name: str, split: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORI_DATASETS", str(FILES.resolve()))
    source = CATALOGUE[name]
    given = readers.READERS["local"](source, config.Sizes(), 0, name, None)
    examples = [example for of, example in given.rows if of == split]
    assert len(examples) == count
    assert all(example.scorer == source.scorer for example in examples)
