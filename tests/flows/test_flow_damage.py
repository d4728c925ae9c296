"""Each file that `why` and the gate read, damaged in turn: both name it, and nothing is judged."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from measured import (
    ALONE,
    EXCESS,
    MERGED,
    ROWS,
    flipped,
    judge,
    lock_of,
    refusal,
    told,
    untouched,
    write_lock,
)


def test_whole_evidence_is_judged_and_this_candidate_refused(measured: Path) -> None:
    assert told() == told(".") == ""
    outcome = judge()
    assert [f.rule for f in outcome.verdict.failed] == ["excess.math"]
    assert outcome.verdict.findings[1].rule == "forgetting"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": lambda content: flipped(content, 0),
    "a byte": lambda content: flipped(content, random.Random(0).randrange(len(content))),
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "longer": lambda content: content + b"\n",
}
#: What the verdict stands on, or its lineage does.
FILES = [
    f"{MERGED}/adapter.json",
    f"{MERGED}/adapter.safetensors",
    "artifacts/math/adapter/adapter.json",
    "artifacts/safety/adapter/adapter.safetensors",
    "artifacts/math/calibrated/adapter.safetensors",
    "artifacts/safety/mask.safetensors",
    "metrics/train/math.json",
    "metrics/evaluate/merged/concat.json",
    "metrics/evaluate/adapters/safety.json",
    EXCESS,
    ROWS,
    "artifacts/evaluations/merged/concat/concat/safety.jsonl",
    ALONE,
    "data/manifest.json",
    "data/math/train.jsonl",
    "data/safety/test.jsonl",
    "data/math/validation.jsonl",
    "dvc.lock",
    "data.dvc",
]
#: Of these nothing is read to judge: they may be gone, as on a machine that never had them.
UNUSED = (
    "artifacts/safety/mask.safetensors",
    "metrics/train/math.json",
    "metrics/evaluate/adapters/safety.json",
)


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_damaged_is_named_by_why_and_by_the_gate(
    measured: Path, name: str
) -> None:
    path = measured / name
    content = path.read_bytes()
    for damage, change in DAMAGES.items():
        path.write_bytes(change(content))
        if damage == "longer" and name in ("dvc.lock", "data.dvc"):
            continue  # an empty line more says nothing else
        assert name in told(), damage
        assert name in refusal(), damage
    path.unlink()
    if name not in UNUSED:
        assert name in refusal()
    path.write_bytes(content)
    assert told() == ""
    assert untouched()


def test_a_lock_cut_at_any_line_is_noticed(measured: Path) -> None:
    path = measured / "dvc.lock"
    lines = path.read_text().splitlines(keepends=True)
    for count in range(len(lines)):
        path.write_text("".join(lines[:count]))
        assert "dvc.lock" in told(), count


@pytest.mark.parametrize("defined", [True, False])
def test_a_lock_without_a_stage_is_noticed(measured: Path, defined: bool) -> None:
    if not defined:
        (measured / "dvc.yaml").unlink()
    whole = lock_of(measured)
    for name in whole["stages"]:
        if not defined and not any("metrics/" in o["path"] for o in whole["stages"][name]["outs"]):
            continue
        write_lock(
            measured, whole | {"stages": {n: s for n, s in whole["stages"].items() if n != name}}
        )
        assert "dvc.lock" in told(), name
        assert "dvc.lock" in refusal(), name
    assert untouched()


def entries(stage: dict[str, Any]) -> Iterator[tuple[str, int]]:
    yield from (("deps", i) for i in range(len(stage["deps"])))
    yield from (("outs", i) for i in range(len(stage["outs"])))


def changed(lock: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that can be changed."""
    return dict(json.loads(json.dumps(lock)))


def test_a_lock_whose_stage_lacks_a_part_is_noticed(measured: Path) -> None:
    whole = lock_of(measured)
    for name, stage in whole["stages"].items():
        for part in ("cmd", "deps", "params", "outs"):
            if stage[part] and stage[part] != {"params.yaml": {}}:
                lock = changed(whole)
                del lock["stages"][name][part]
                write_lock(measured, lock)
                assert "dvc.lock" in told("."), f"{name} without {part}"
                assert name == "report" or "dvc.lock" in refusal(), f"{name} without {part}"
        for section, index in entries(stage):
            lock = changed(whole)
            del lock["stages"][name][section][index]
            write_lock(measured, lock)
            assert "dvc.lock" in told("."), f"{name} without {section} {index}"


def test_a_lock_with_any_hash_or_size_changed_is_noticed(measured: Path) -> None:
    whole = lock_of(measured)
    for name, stage in whole["stages"].items():
        for section, index in entries(stage):
            for key, value in (("md5", "0" * 32), ("size", 3), ("nfiles", 99)):
                lock = changed(whole)
                entry = lock["stages"][name][section][index]
                if key not in entry or (section == "deps" and not recorded_twice(entry, key)):
                    continue
                folder = key == "md5" and entry["md5"].endswith(".dir")
                entry[key] = f"{value}.dir" if folder else value
                write_lock(measured, lock)
                assert "dvc.lock" in told("."), f"{name} {section} {entry['path']} {key}"


def recorded_twice(entry: dict[str, Any], key: str) -> bool:
    """Whether what a stage read is recorded elsewhere, too; other records cannot be compared."""
    path = entry["path"]
    if key == "md5":
        return not path.endswith(".py")
    return path.startswith("artifacts/") and path != "artifacts/evaluations"


def test_data_dvc_edited_in_any_part_is_noticed(measured: Path) -> None:
    path = measured / "data.dvc"
    pinned = yaml.safe_load(path.read_text())["outs"][0]
    edits: list[dict[str, Any]] = [
        {"md5": "0" * 32 + ".dir"},
        {"md5": "0" * 32},
        {"md5": pinned["md5"][:-4]},
        {"md5": 5},
        {"size": pinned["size"] + 1},
        {"size": None},
        {"size": "1"},
        {"nfiles": pinned["nfiles"] - 1},
        {"nfiles": None},
        {"path": "other"},
        {"path": None},
        {"hash": None},
        {"md5": None},
    ]
    for edit in edits:
        entry = {key: v for key, v in (pinned | edit).items() if v is not None}
        path.write_text(yaml.safe_dump({"outs": [entry]}))
        assert "data.dvc" in told(), edit
        assert "data.dvc" in refusal(), edit
    for text in ("", "outs: []\n", "outs:\n", "[]\n", "x", "outs: [{}]\n"):
        path.write_text(text)
        assert "data.dvc" in told(), text
    assert untouched()


def test_without_a_cache_everything_is_still_compared(measured: Path) -> None:
    shutil.rmtree(measured / ".dvc/cache")
    assert told() == ""
    for name in FILES[:-2]:
        content = (measured / name).read_bytes()
        (measured / name).write_bytes(flipped(content, len(content) // 2))
        folder = name.rpartition("/")[0]
        assert (
            name in told()
            or folder in told()
            or "artifacts/evaluations" in told()
            or (name.startswith("data/") and "data: is not what data.dvc pins" in told())
        ), name
        assert refusal()
        (measured / name).write_bytes(content)
