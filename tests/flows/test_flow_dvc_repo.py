"""A kill at any moment leaves DVC's small files whole; one that was cut is mended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.doctor.checks import locks
from flows.execution.stage_process import reproduce
from flows.versioning import graph
from flows.versioning.dvc.dvc_repo import drop_dead_locks

#: Reproduces a stage, and is killed halfway through the write that `{where}` does.
KILLED = """
import os, signal
import {module} as module
from flows.execution.stage_process import reproduce

whole = module.{writer}

def half(data, stream):
    if "lock" not in stream.name:
        return whole(data, stream)
    stream.write('{{"read"')
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

module.{writer} = half
reproduce({stage!r})
"""
WRITES = {
    "rwlock": ("dvc.rwlock", "json.dump"),
    "dvc.lock": ("flows.versioning.dvc.lock_io", "_write"),
}


def killed_while_writing(name: str, stage: str) -> int:
    module, writer = WRITES[name]
    script = KILLED.format(module=module, writer=writer, stage=stage)
    return subprocess.run([sys.executable, "-c", script], check=False).returncode


@pytest.mark.parametrize(
    ("name", "path"), [("rwlock", ".dvc/tmp/rwlock"), ("dvc.lock", "dvc.lock")]
)
def test_a_kill_in_the_middle_of_a_write_leaves_what_was_there(
    name: str, path: str, toy: Path
) -> None:
    assert reproduce("prepare") == 0
    before = (toy / path).read_bytes()
    assert killed_while_writing(name, "train@math") == -signal.SIGKILL
    assert (toy / path).read_bytes() == before
    assert reproduce("train@math") == 0
    assert set(graph.stale(toy)) == {"train@nlu", "report"}


@pytest.mark.parametrize("text", ["", '{"write": {"/w/out', "\0\0\0"], ids=["empty", "cut", "nul"])
def test_a_lock_file_that_a_kill_has_cut_holds_nobody_up(text: str, toy: Path) -> None:
    rwlock = toy / ".dvc" / "tmp" / "rwlock"
    rwlock.parent.mkdir(exist_ok=True)
    rwlock.write_text(text)
    (finding,) = locks(toy, {})
    assert (finding.ok, finding.text) == (False, f"{rwlock} is damaged: its writer was killed")
    assert set(graph.stale(toy)) == {"prepare", "train@math", "train@nlu", "report"}
    assert reproduce("prepare") == 0
    assert json.loads(rwlock.read_text()) == {}
    assert [finding.ok for finding in locks(toy, {})] == [True]


def test_what_killed_processes_hold_is_dropped_and_nothing_else(toy: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    gone, here = ({"pid": pid, "cmd": "dvc"} for pid in (ended.pid, os.getpid()))
    rwlock = toy / ".dvc" / "tmp" / "rwlock"
    rwlock.parent.mkdir(exist_ok=True)
    held = {"read": {"/a": [gone, here], "/b": [gone]}, "write": {"/c": gone, "/d": here}}
    rwlock.write_text(json.dumps(held))
    drop_dead_locks(toy)
    assert json.loads(rwlock.read_text()) == {"read": {"/a": [here]}, "write": {"/d": here}}
    assert [finding.ok for finding in locks(toy, {})] == [True]


def test_a_pin_that_a_kill_has_emptied_is_made_again(toy: Path) -> None:
    from flows.versioning.data import pin

    assert pin(toy)
    pinned = (toy / "data.dvc").read_bytes()
    (toy / "data.dvc").write_bytes(b"")
    assert pin(toy)
    assert (toy / "data.dvc").read_bytes() == pinned
    assert not pin(toy)


def test_a_stage_that_is_stopped_gives_back_what_it_held(toy: Path) -> None:
    (toy / "toy.py").write_text("import signal; print('up', flush=True); signal.pause()\n")
    with subprocess.Popen(
        [sys.executable, "-m", "flows.execution.stage_process", "prepare"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        rwlock = toy / ".dvc" / "tmp" / "rwlock"
        assert str(process.pid) in rwlock.read_text()
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert json.loads(rwlock.read_text()) == {}
