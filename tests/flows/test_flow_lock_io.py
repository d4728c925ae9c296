"""`dvc.lock` as written here has the bytes that DVC writes."""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc.dvcfile import Lockfile
from dvc.fs import LocalFileSystem

from flows.versioning.dvc import lock_file, lock_io
from flows.versioning.dvc.yaml_document import parsed

MD5 = "4fc6be45839d40ae2d9f57046b5fce2c"
NAMES = ["mask@math", "no", "1", "with space", "a: b", "'quoted'", "täsk", "-x", "x#y", "train@a.b"]
COMMANDS = [
    "lori stage mask math",
    "python -c 'print(1)'  # " + "long words that are folded " * 9,
    ["first", "second: with colon"],
    "line one\nline two\n\n  indented: yes\n- not a list\n",
    "täglich \u2028 \t tab",
]
VALUES = [True, None, 1e-05, "1e-05", "no", [], {}, [1, [2, "x"]], {"a": {"b": "c\n\nd"}}, "x: y"]


def _entry(seed: int) -> dict[str, Any]:
    """Return an entry of a stage, drawn by the seed."""
    draw = random.Random(seed)
    out = {"path": f"artifacts/{seed}", "hash": "md5", "md5": MD5, "size": seed}
    entry: dict[str, Any] = {"cmd": deepcopy(draw.choice(COMMANDS))}
    if draw.random() < 0.8:
        entry["deps"] = [out | {"path": f"in/{n} {'long ' * n}"} for n in range(draw.randrange(20))]
    if draw.random() < 0.8:
        entry["params"] = {
            "params.yaml": {f"key.{n}": deepcopy(draw.choice(VALUES)) for n in range(5)}
        }
    return entry | {"outs": [out]}


class _Stage:
    """What DVC's serialization of an entry is replaced with: a name and the entry."""

    def __init__(self, name: str, entry: dict[str, Any]) -> None:
        self.name, self.entry = name, entry


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, list[str]]:
    """Return DVC's own writer, the writer here, and the list of the times it fell back."""
    real, fell_back = Lockfile.dump_stages, list[str]()
    monkeypatch.setattr("dvc.stage.serialize.to_lockfile", lambda stage: {stage.name: stage.entry})

    def counted(self: Any, stages: Any) -> None:
        fell_back.append(stages[0].name)
        real(self, stages)

    return real, lock_io._writer(counted), fell_back


def _lock(path: Path) -> Any:
    tracked: list[str] = []
    scm = SimpleNamespace(track_file=tracked.append)
    repo = SimpleNamespace(fs=LocalFileSystem(), scm_context=scm)
    lock: Any = Lockfile.__new__(Lockfile)
    lock.repo, lock.path = repo, str(path)
    return lock


@pytest.mark.parametrize("tail", ["", "datasets:\n- name: x\n  url: https://example.org\n"])
def test_the_bytes_are_those_that_dvc_writes(both: Any, tmp_path: Path, tail: str) -> None:
    real, ours, fell_back = both
    theirs, mine = tmp_path / "theirs.lock", tmp_path / "mine.lock"
    real(_lock(theirs), [_Stage("mask@math", _entry(0))])
    theirs.write_text(theirs.read_text() + tail)
    mine.write_bytes(theirs.read_bytes())
    for seed in range(20):
        draw = random.Random(seed)
        stages = [
            _Stage(name, _entry(1000 * seed + n))
            for n, name in enumerate(draw.sample(NAMES, draw.choice((1, 1, 1, 3))))
        ]
        real(_lock(theirs), stages)
        ours(_lock(mine), stages)
        assert mine.read_bytes() == theirs.read_bytes()
        assert list(lock_file.read_lock(mine.read_bytes(), "dvc.lock")) == list(
            parsed(theirs.read_bytes(), "dvc.lock", "")["stages"]
        )
    assert fell_back == []


def test_an_unchanged_entry_is_not_written(both: Any, tmp_path: Path) -> None:
    real, ours, _ = both
    path = tmp_path / "dvc.lock"
    real(_lock(path), [_Stage("a", _entry(1)), _Stage("b", _entry(2))])
    before = path.stat()
    ours(_lock(path), [_Stage("a", _entry(1))])
    assert path.stat() == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("schema: '2.0'\n", "schema: '2.0'\n# a comment\n"),
        ("  a:\n", "  a: # a comment\n"),
        ("  b:\n", "  ? b\n  :\n"),
        ("schema: '2.0'\nstages:\n", "stages:\n"),
    ],
)
def test_a_file_that_people_changed_is_left_to_dvc(
    both: Any, tmp_path: Path, before: str, after: str
) -> None:
    real, ours, fell_back = both
    path = tmp_path / "dvc.lock"
    real(_lock(path), [_Stage("a", _entry(1)), _Stage("b", _entry(2))])
    text = path.read_text()
    assert before in text
    moved = before if "schema" in before and "schema" not in after else ""
    path.write_text(text.replace(before, after, 1) + moved.removesuffix("stages:\n"))
    ours(_lock(path), [_Stage("a", _entry(3))])
    assert fell_back == ["a"]
    stages = lock_file.read_lock(path.read_bytes(), "dvc.lock")
    assert stages["a"].outs["artifacts/3"].size == 3
    assert stages["b"].outs["artifacts/2"].size == 2


def test_a_new_file_is_left_to_dvc(both: Any, tmp_path: Path) -> None:
    _, ours, fell_back = both
    path = tmp_path / "dvc.lock"
    ours(_lock(path), [_Stage("a", _entry(1))])
    assert fell_back == ["a"]
    assert list(lock_file.read_lock(path.read_bytes(), "dvc.lock")) == ["a"]


def test_one_stage_is_read_as_from_the_whole_file(both: Any, tmp_path: Path) -> None:
    real, _, _ = both
    path = tmp_path / "dvc.lock"
    real(_lock(path), [_Stage(name, _entry(seed)) for seed, name in enumerate(NAMES)])
    content = path.read_bytes() + b"datasets:\n- name: x\n  url: https://example.org\n"
    whole = lock_file.read_lock(content, "dvc.lock")
    for name in NAMES:
        part = lock_io.only_stage(content, name)
        assert lock_file.read_lock(part, "dvc.lock")[name] == whole[name]
    assert len(lock_io.only_stage(content, "mask@math")) < len(content) / 5
    assert lock_io.only_stage(content, "absent") == content
    shared = content + b"x: &id001 [a]\ny: *id001\n"
    assert lock_io.only_stage(shared, "mask@math") == shared


def test_dvc_reads_the_entry_of_one_stage_only(both: Any, tmp_path: Path) -> None:
    real, _, _ = both
    path = tmp_path / "dvc.lock"
    real(_lock(path), [_Stage(name, _entry(seed)) for seed, name in enumerate(NAMES)])
    load = lock_io._reader(None)
    whole, text = load(_lock(path))
    assert list(whole["stages"]) == NAMES
    for name in NAMES:
        with lock_io.reading_only(name):
            assert load(_lock(path)) == (whole | {"stages": {name: whole["stages"][name]}}, text)
    with lock_io.reading_only("absent"):
        assert load(_lock(path)) == ({"schema": "2.0", "stages": {}}, text)
    assert load(_lock(path)) == (whole, text)


def test_lines_before_the_first_stage_are_left_to_dvc() -> None:
    assert lock_io.with_stages(f"{lock_file.HEAD}    x: y\n  a:\n    cmd: b\n", {}) is None
