"""Control groups: where they are made, and that what is left in one dies with it.

A kernel whose memory and number of processes are counted by cgroup v2, for this user, is needed to
see the limits themselves; the other tests need any cgroup v2 that this user may write.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from lori_core.evaluation.sandbox import control_group
from lori_core.evaluation.sandbox.control_group import ControlGroup
from lori_core.evaluation.sandbox.sandbox import DEFAULT, Program, run_program


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    """A group without limits, in whatever cgroup v2 this user may write."""
    own = control_group._own()
    for parent in (own.parent, own) if own else ():
        made = ControlGroup(parent / "lori-test")
        if not (parent / "cgroup.controllers").exists():
            continue  # above the mount
        try:
            made.folder.mkdir()
        except OSError:
            continue
        try:
            yield made
        finally:
            control_group._end(made.folder)
        return
    pytest.skip("this user may make no group in cgroup v2")


@pytest.mark.parametrize(
    ("group_line", "mount", "expected"),
    [
        ("0::/", "/ /sys/fs/cgroup", "/sys/fs/cgroup"),
        ("0::/user.slice/a.scope", "/ /sys/fs/cgroup", "/sys/fs/cgroup/user.slice/a.scope"),
        ("0::/docker/x/y", "/docker/x /sys/fs/cgroup", "/sys/fs/cgroup/y"),
        ("0::/docker/x", "/docker/x /sys/fs/cgroup", "/sys/fs/cgroup"),
        ("0::/docker/xy", "/docker/x /sys/fs/cgroup", None),  # ours is not mounted
        ("4:memory:/x", "/ /sys/fs/cgroup", None),
    ],
)
def test_where_our_own_group_is(
    group_line: str, mount: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "cgroup").write_text(f"4:memory:/elsewhere\n{group_line}\n")
    line = f"41 31 0:38 {mount} rw,relatime - cgroup2 cgroup2 rw\n"
    (tmp_path / "mountinfo").write_text(f"1 1 0:1 / / rw - ext4 x rw\n{line}")
    found = control_group._own(tmp_path)
    assert found == (Path(expected) if expected else None)


def test_no_cgroup_no_groups(tmp_path: Path) -> None:
    assert control_group._own(tmp_path) is None
    assert not control_group._can_limit(tmp_path)


def test_a_command_enters_a_group_and_is_itself_there(group: ControlGroup) -> None:
    done = subprocess.run(
        group.entered(["cat", "/proc/self/cgroup"]), capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("0::")]
    assert line.endswith("/lori-test")


def test_the_remaining_processes_of_a_group_are_killed(group: ControlGroup) -> None:
    left = subprocess.Popen(group.entered(["sleep", "1000"]))
    listed = group.folder / "cgroup.procs"
    while str(left.pid) not in listed.read_text().split():
        assert left.poll() is None
    control_group._end(group.folder)
    assert left.wait(10) == -9
    assert not group.folder.exists()


@pytest.mark.skipif(control_group.parent() is None, reason="no control groups with limits here")
@pytest.mark.skipif(sys.platform != "linux", reason="Linux's")
def test_processes_share_one_limit_of_memory() -> None:
    source = """
        import os
        def hoard():
            for _ in range(6):
                if os.fork() == 0:
                    kept = bytearray(400 << 20)
                    os._exit(0 if kept else 1)
            return [os.wait()[1] for _ in range(6)]
    """
    tests = "def check(candidate):\n    assert candidate() == [0] * 6\n"
    outcome = run_program(Program(textwrap.dedent(source), tests, "hoard"), DEFAULT)
    assert outcome.status == "failed"


def test_without_control_groups_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_group, "parent", lambda: None)
    with control_group.limited(1 << 30, 16) as group:
        assert group is None
