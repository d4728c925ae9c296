"""A damaged file of the workspace is refused by every command with the same line and code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.versioning.dvc.dvc_repo import dead_locks, read_rwlock
from support import refused

COMMANDS = {
    "plan": ["plan"],
    "why": ["why"],
    "diff": ["diff", "artifacts/math/adapter", "artifacts/safety/adapter"],
    "restore": ["restore", "data", "restored"],
    "track": ["track"],
    "run": ["run"],
}
LOCK = (
    "restore it, as in git checkout -- dvc.lock, or from the last run's folder in .lori/snapshots"
)
DEFINITION = "restore it, as in git checkout -- dvc.yaml"


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda workspace: (workspace / name).write_text(content)


def conflict(name: str) -> Callable[[Path], object]:
    def damage(workspace: Path) -> None:
        path = workspace / name
        sides = f"<<<<<<< HEAD\n{path.read_text()}=======\n{path.read_text()}>>>>>>> other\n"
        path.write_text(sides)

    return damage


def stands(name: str, *, folder: bool) -> Callable[[Path], object]:
    def damage(workspace: Path) -> None:
        path = workspace / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if folder:
            path.mkdir(parents=True)
        else:
            path.write_text("x")

    return damage


MARKS = "it holds the marks of a merge conflict"
FILE, FOLDER = "a file stands where a folder should", "a folder stands where a file should"
NODE = "not valid YAML (did not find expected node content)"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty lock": (text("dvc.lock", ""), f"dvc.lock: damaged: the file is empty; {LOCK}"),
    "a lock with a conflict": (conflict("dvc.lock"), f"dvc.lock:1: damaged: {MARKS}; {LOCK}"),
    "a lock of no YAML": (text("dvc.lock", "a: [1, {\n"), f"dvc.lock:2: damaged: {NODE}; {LOCK}"),
    "a lock of a list": (text("dvc.lock", "- 1\n"), f"dvc.lock: damaged: not a mapping; {LOCK}"),
    "a folder as lock": (stands("dvc.lock", folder=True), f"dvc.lock: {FOLDER}: move it away"),
    "empty stages": (text("dvc.yaml", ""), f"dvc.yaml: damaged: the file is empty; {DEFINITION}"),
    "stages with a conflict": (
        conflict("dvc.yaml"),
        f"dvc.yaml:1: damaged: {MARKS}; {DEFINITION}",
    ),
    "no stages": (
        text("dvc.yaml", "vars: [params.yaml]\n"),
        f"dvc.yaml: damaged: it defines no stages; {DEFINITION}",
    ),
    "settings cut off": (
        text(".dvc/config", "[core\n"),
        ".dvc/config: damaged: Invalid line ('[core') (matched as neither section nor keyword) at "
        "line 1; restore it, as in git checkout -- .dvc/config",
    ),
    "a file as .lori": (stands(".lori", folder=False), f".lori: {FILE}: move it away"),
    "a file as .dvc/tmp": (stands(".dvc/tmp", folder=False), f".dvc/tmp: {FILE}: move it away"),
    "a file as cache": (stands(".dvc/cache", folder=False), f".dvc/cache: {FILE}: move it away"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_alike_by_every_command(
    damage: str, measured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    make, expected = DAMAGES[damage]
    make(measured)
    lock = measured / "dvc.lock"
    before = lock.read_bytes() if lock.is_file() else None
    for name, command in COMMANDS.items():
        assert refused(capsys, *command) == f"error: {expected}", name
    assert not (measured / "restored").exists()
    assert before is None or lock.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "3",
        '{"read": 3}',
        '{"write": {"/a": "x"}}',
        '{"read": {"/a": [{"pid": "z"}]}}',
        "\xff",
    ],
)
def test_a_list_of_busy_paths_in_another_form_holds_nobody_up(content: str, toy: Path) -> None:
    from flows.versioning import graph

    rwlock = toy / ".dvc" / "tmp" / "rwlock"
    rwlock.parent.mkdir(exist_ok=True)
    rwlock.write_bytes(content.encode("latin1"))
    assert read_rwlock(rwlock) is None
    assert list(dead_locks(read_rwlock(rwlock) or {})) == []
    assert len(graph.plan(toy).stages) == 4


def test_a_pin_that_is_damaged_is_made_again_by_a_pull(toy: Path) -> None:
    from flows.versioning.data import pin

    assert pin(toy)
    pinned = (toy / "data.dvc").read_bytes()
    for content in (pinned[: len(pinned) // 2], b"<<<<<<< HEAD\n" + pinned):
        (toy / "data.dvc").write_bytes(content)
        assert pin(toy)
        assert (toy / "data.dvc").read_bytes() == pinned
