"""A pull through the store against the same pull in lists, and what it takes."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lori_core import config
from lori_core.core.errors import DataError, LoriError
from lori_core.data.example import SPLITS, Example
from lori_core.data.sources import pulling
from lori_core.data.sources.store import TaskExamples, scratch

SEED = 5
Splits = dict[str, list[Example]]


def params(**tasks: tuple[list[Any], dict[str, int]]) -> config.Params:
    values = {
        "model": {"name_or_path": "random:llama"},
        "lori": {"seed": SEED},
        "training": {},
        "tasks": {
            name: {"source": listed, "sizes": sizes, "calibration": {}, "training": {}}
            for name, (listed, sizes) in tasks.items()
        },
    }
    return config.parse(values, "params.yaml")


def write(folder: Path, splits: Splits) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        text = "".join(json.dumps({"prompt": e.prompt, "target": e.target}) + "\n" for e in rows)
        (folder / f"{split}.jsonl").write_text(text)


def in_order(rows: list[Example]) -> list[Example]:
    return sorted(rows, key=lambda e: hashlib.sha256(f"{SEED}\n{e.id}".encode()).hexdigest())


def prompt_of(example: Example) -> str:
    return " ".join(example.prompt.lower().split())


def in_lists(
    given: list[tuple[Splits, dict[str, int]]], sizes: dict[str, int]
) -> tuple[Splits, dict[str, dict[str, int]]]:
    """Put examples of several sources, each with its limits, in order as a pull does."""
    splits: Splits = {split: [] for split in SPLITS}
    for source, limit in given:
        for split, rows in source.items():
            most = limit.get(split, len(rows))
            splits[split] += rows if len(rows) <= most else in_order(rows)[:most]
    for split in ("test", "validation"):
        rows = in_order(splits["train"])
        if not splits[split] and len(rows) > 1:
            share = sizes.get(split) or min(500, max(1, len(rows) // 10))
            count = min(share, len(rows) // 2)
            splits[split], splits["train"] = rows[:count], rows[count:]
    removed = {"leaks": dict.fromkeys(SPLITS, 0), "duplicates": dict.fromkeys(SPLITS, 0)}
    above: set[str] = set()
    for split in ("test", "validation", "train"):
        apart = [e for e in splits[split] if prompt_of(e) not in above]
        kept = list({(prompt_of(e), e.target): e for e in reversed(apart)}.values())[::-1]
        removed["leaks"][split] = len(splits[split]) - len(apart)
        removed["duplicates"][split] = len(apart) - len(kept)
        above |= {prompt_of(e) for e in kept}
        splits[split] = in_order(kept)[: sizes.get(split)]
    return splits, removed


def drawn(random: Random) -> tuple[list[tuple[Splits, dict[str, int]]], dict[str, int]]:
    """Draw sources full of duplicates, limits and sizes."""

    def example() -> Example:
        prompt = f"question {random.randint(0, 60)} ä"
        prompt = random.choice([prompt, prompt.upper(), prompt.replace(" ", "\t ")])
        return Example(prompt, random.choice("ab"))

    given = []
    for _ in range(random.randint(1, 3)):
        files = [split for split in SPLITS if random.random() < 0.4] or ["train"]
        source = {split: [example() for _ in range(random.randint(1, 50))] for split in files}
        limits = {split: random.choice([len(rows), 0, 20]) for split, rows in source.items()}
        given.append((source, {split: limits[split] for split in files if random.random() < 0.6}))
    return given, {split: random.randint(1, 30) for split in SPLITS if random.random() < 0.4}


@pytest.mark.parametrize("seed", range(60))
def test_a_pull_gives_what_it_would_in_lists(seed: int, tmp_path: Path) -> None:
    tasks, expected = {}, {}
    for name in ("one", "two"):
        given, sizes = drawn(Random(f"{seed} {name}"))
        listed: list[Any] = []
        for number, (source, limit) in enumerate(given):
            write(tmp_path / name / str(number), source)
            path = str(tmp_path / name / str(number))
            listed.append({"kind": "local", "path": path, "limit": limit})
        tasks[name], expected[name] = (listed, sizes), (given, *in_lists(given, sizes))
    out = tmp_path / "data"
    if not all(splits["train"] and splits["test"] for _, splits, _ in expected.values()):
        with pytest.raises(DataError, match=r"no (train|test) examples in any of its sources"):
            pulling.pull(params(**tasks), out)
        assert not out.exists()
        return
    pulling.pull(params(**tasks), out)
    manifest = json.loads((out / "manifest.json").read_text())["tasks"]
    for name, (given, splits, removed) in expected.items():
        for split, rows in splits.items():
            text = "".join(json.dumps(e.row(), ensure_ascii=False) + "\n" for e in rows)
            assert (out / name / f"{split}.jsonl").read_text() == text
            assert manifest[name]["splits"][split]["count"] == len(rows)
        assert manifest[name]["duplicates_removed"] == removed["duplicates"]
        assert manifest[name]["leaks_removed"] == removed["leaks"]
        gives = [source["gives"] for source in manifest[name]["sources"]]
        assert gives == [sorted(source) for source, _ in given]


def test_all_tasks_are_read_before_one_is_written(tmp_path: Path) -> None:
    write(tmp_path / "good", {"train": [Example(f"q{i}", "a") for i in range(9)]})
    write(tmp_path / "bad", {"train": [Example("q", "a"), Example(" ", "a")]})
    tasks: dict[str, Any] = {
        name: ([{"kind": "local", "path": str(tmp_path / name)}], {}) for name in ("good", "bad")
    }
    with pytest.raises(DataError, match=r"train.jsonl:2: the prompt is empty"):
        pulling.pull(params(**tasks), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def peak(folder: Path, count: int) -> int:
    """Return the most bytes that Python holds while so many rows are pulled."""
    rows = (json.dumps({"prompt": f"question {n // 2}", "target": "a" * 99}) for n in range(count))
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(rows))
    run = params(task=([{"kind": "local", "path": str(folder), "limit": {"train": count - 1}}], {}))
    tracemalloc.start()
    try:
        pulling.pull(run, folder / "data")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peak(tmp_path / "first", 10)
    few, many = peak(tmp_path / "few", 1_000), peak(tmp_path / "many", 10_000)
    assert many - few < 9_000  # less than a byte a row
    assert many < 2**20


def test_a_full_disk_is_one_line() -> None:
    rows = [("train", Example(f"question {n}", "a" * 999)) for n in range(99)]
    with pytest.raises(LoriError, match=r"disk is full \(SQLITE_TMPDIR names"), scratch() as store:
        store.execute("PRAGMA max_page_count = 9")
        TaskExamples(store, SEED).add(rows, {})


def kept(*rows: tuple[Any, Example]) -> tuple[list[str], int]:
    """Return the prompts that are left of a task's examples, and how many contradict others."""
    with scratch() as database:
        task = TaskExamples(database, SEED)
        task.add(rows, {})
        task.drop_leaks()
        task.drop_duplicates()
        lines = [line for split in SPLITS for line in task.lines(split, 99)]
        return sorted(json.loads(line)["prompt"] for line in lines), task.contradictions()


def number(answer: str) -> Example:
    return Example("What is 2 - 1?", "One.", "number", answer)


def test_answers_that_judge_alike_make_one_item() -> None:
    same = [("test", number(answer)) for answer in ("1", "1.0", "$1", "1.00 = 1")]
    assert kept(*same) == (["What is 2 - 1?"], 0)
    choices = [("test", Example("Which?", "x", "choice", text)) for text in ("true", "True.")]
    assert kept(*choices) == (["Which?"], 0)
    assert kept(("test", number("1")), ("test", number("2"))) == (["What is 2 - 1?"] * 2, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("fine \u00e9", "\ufb01ne e\u0301"),
        ("fine", "f\u200bi\u2060ne\ufeff"),
        ("fine day", "fi\u00adne\u00a0day"),
        ("a \u200b b", "a b"),
        ("Straße", "STRASSE"),
        ("\uff21\uff22 １", "ab 1"),
        ("heart \u2764", "heart \u2764\ufe0f"),
        ("\uac00", "\u1100\u1161"),
    ],
)
def test_prompts_that_look_alike_are_one(one: str, other: str) -> None:
    rows = [("test", Example(one, "x")), ("train", Example(other, "x"))]
    assert kept(*rows) == ([one], 0)
    assert kept(*rows[::-1]) == ([one], 0)


@pytest.mark.parametrize(
    ("one", "other"), [("5² = ?", "52 = ?"), ("a₁", "a1"), ("3½", "31⁄2"), ("x − 1", "x 1")]
)
def test_prompts_that_say_another_number_are_two(one: str, other: str) -> None:
    rows = [("test", Example(one, "x")), ("train", Example(other, "x"))]
    assert kept(*rows) == (sorted([one, other]), 0)


@pytest.mark.parametrize("prompt", ["\u200b", " \ufeff\u2060 \u200d", "\u00ad", "\ufe0f"])
def test_a_prompt_of_nothing_visible_is_empty(prompt: str, tmp_path: Path) -> None:
    write(tmp_path / "set", {"train": [Example("q", "a"), Example(prompt, "a")]})
    source = [{"kind": "local", "path": str(tmp_path / "set")}]
    with pytest.raises(DataError, match=r"train.jsonl:2: the prompt is empty"):
        pulling.pull(params(task=(source, {})), tmp_path / "data")
