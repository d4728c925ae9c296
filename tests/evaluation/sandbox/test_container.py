"""The sandbox inside a container: what the doctor says of it, and where it works."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lori_core.evaluation.sandbox.isolation import Interpreter

ROOT = Path(__file__).parents[3]
#: Calls that container runtimes deny to whoever lacks CAP_SYS_ADMIN, by machine.
DENIED = {
    "x86_64": {"unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155},
    "aarch64": {"unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41},
}
#: Puts such a filter on this process and all it starts; then runs the code that is given to it.
FILTERED = """
import struct, sys
from lori_core.evaluation.sandbox import system_calls as calls
from lori_core.evaluation.sandbox.candidate import confine
steps = [(calls.LOAD, 0, 0, calls.NUMBER)]
for number in {denied}:
    steps += [(calls.EQUAL, 0, 1, number), (calls.RETURN, 0, 0, calls.DENY)]
steps += [(calls.EQUAL, 0, 1, calls.CLONE3), (calls.RETURN, 0, 0, calls.UNKNOWN)]
steps += [(calls.EQUAL, 0, 3, {clone}), (calls.LOAD, 0, 0, 16)]
steps += [(calls.ANY_BIT, 0, 1, calls.NEW_NAMESPACES), (calls.RETURN, 0, 0, calls.DENY)]
steps += [(calls.RETURN, 0, 0, calls.ALLOW)]
confine(b"".join(struct.pack("<HBBI", *step) for step in steps))
"""
DOCTOR = """
from pathlib import Path
from flows.doctor.checks import sandbox
for unsafe in (False, True):
    (found,) = sandbox(Path(), {"evaluation": {"unsafe_code": unsafe}})
    print(found.ok, "|", found.text, "|", found.todo)
"""
#: As a runtime starts a container: its own mounts and processes, /proc masked and its settings
#: read-only, an ordinary user without a capability or a way to one.
CONTAINER = """
mount -t proc proc /proc
mount -t tmpfs -o ro,size=4k none /proc/irq
mount --bind /dev/null /proc/keys
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec setpriv --reuid=1000 --regid=1000 --clear-groups --bounding-set=-all --inh-caps=-all \
  --no-new-privs -- "$@"
"""
LOOK = """
from lori_core.evaluation.sandbox.sandbox import Isolation, detect, why_not
print(detect())
print(why_not(Isolation.bubblewrap))
"""


@pytest.mark.skipif(platform.machine() not in DENIED, reason="no filter for this machine")
def test_the_doctor_says_in_a_line_that_a_runtimes_filter_leaves_no_sandbox() -> None:
    machine = platform.machine()
    code = FILTERED.format(
        denied=tuple(DENIED[machine].values()), clone={"x86_64": 56, "aarch64": 220}[machine]
    )
    done = subprocess.run(
        [sys.executable, "-c", code + DOCTOR], cwd=ROOT, capture_output=True, text=True, check=True
    )
    refused, unsafe = done.stdout.splitlines()
    assert refused.startswith(
        "False | generated code cannot be run isolated, and is refused: the sandbox gave no verdict"
    )
    assert "Operation not permitted" in refused or "No permissions" in refused
    assert refused.endswith("(infra/seccomp.json, docs/cluster.md)")
    assert unsafe.startswith("True | generated code runs with all rights of this user")


def python_for_others() -> str | None:
    """Return an interpreter that an ordinary user can run."""
    if not Interpreter.base().staged:
        return str(Interpreter.base().program)
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    found = shutil.which("python3", path="/usr/bin")
    if found and subprocess.run([found, "-c", code], check=False).returncode == 0:
        return found
    return None


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start what is like a container")
def test_a_masked_proc_leaves_a_sandbox_without_proc() -> None:
    python = python_for_others()
    if python is None:
        pytest.skip("no Python 3.11 that other users can run")
    # What the ordinary user may read: the modules that the sandbox is made of.
    folder = Path("/tmp") / f"lori-test-{os.getpid()}"  # noqa: S108 - pytest's folders are closed
    shutil.copytree(ROOT / "lori_core/evaluation", folder / "lori_core/evaluation")
    shutil.copy(ROOT / "lori_core/__init__.py", folder / "lori_core")
    try:
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
        command = [*unshare, "sh", "-ec", textwrap.dedent(CONTAINER), "x", python, "-c", LOOK]
        environment = {"PATH": os.defpath, "PYTHONPATH": str(folder)}
        done = subprocess.run(
            command, cwd="/", env=environment, capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    way, why = done.stdout.splitlines()
    assert way == "container"
    assert "Can't mount proc" in why
