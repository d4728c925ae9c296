"""`infra/seccomp.json`: what it allows, and that the sandbox works under it, by libseccomp."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lori_core.evaluation.sandbox import system_calls

ROOT = Path(__file__).parents[2]
PROFILE: dict[str, Any] = json.loads((ROOT / "infra" / "seccomp.json").read_text())
SANDBOX = {"clone", "mount", "pivot_root", "umount2", "unshare"}
#: What a container runtime's own profile denies, and we too.
DENIED = {
    "acct", "add_key", "bpf", "chroot", "clock_settime", "delete_module", "finit_module",
    "fsconfig", "fsmount", "fsopen", "init_module", "io_uring_setup", "ioperm", "iopl", "kcmp",
    "kexec_file_load", "kexec_load", "keyctl", "mount_setattr", "move_mount", "open_by_handle_at",
    "open_tree", "perf_event_open", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl",
    "reboot", "request_key", "setns", "settimeofday", "swapoff", "swapon", "syslog", "userfaultfd",
}  # fmt: skip

#: Loads the profile as a container runtime does, then runs the code that is given to it.
LOADED = """
import ctypes, json
class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int),
                ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
OPERATIONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4}
library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
library.seccomp_init.restype = ctypes.c_void_p
errno_action = lambda number: 0x00050000 | number
profile = json.load(open("infra/seccomp.json"))
context = ctypes.c_void_p(library.seccomp_init(errno_action(profile["defaultErrnoRet"])))
for rule in profile["syscalls"]:
    allowed = rule["action"] == "SCMP_ACT_ALLOW"
    action = 0x7FFF0000 if allowed else errno_action(rule["errnoRet"])
    arguments = [Compare(a["index"], OPERATIONS[a["op"]], a["value"], 0)
                 for a in rule.get("args", [])]
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        assert number != -1, name
        values = (Compare * max(1, len(arguments)))(*arguments)
        code = library.seccomp_rule_add_array(
            context, ctypes.c_uint32(action), number, len(arguments), values)
        assert code == 0 or number < 0, (name, code)
assert library.seccomp_load(context) == 0
"""
LOOK = """
import ctypes, threading
from lori_core.evaluation.sandbox.sandbox import detect
import numpy, sqlite3, ssl, subprocess
call = ctypes.CDLL(None, use_errno=True)
print(detect(), call.setns(0, 0), ctypes.get_errno())
thread = threading.Thread(target=print, args=("a thread",))
thread.start(); thread.join()
"""


def allowed() -> set[str]:
    return {
        name
        for rule in PROFILE["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }


def test_it_allows_what_the_sandbox_is_made_with_and_what_programs_in_it_call() -> None:
    column = " ".join(system_calls.ALLOWED.split()).split(", ")
    assert allowed() >= SANDBOX | {row.split()[0] for row in column}


def test_it_denies_what_a_runtimes_own_profile_denies() -> None:
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    assert allowed() & DENIED == set()
    (clone3,) = (rule for rule in PROFILE["syscalls"] if "clone3" in rule["names"])
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_the_sandbox_works_under_it() -> None:
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("no libseccomp here")
    done = subprocess.run(
        [sys.executable, "-c", LOADED + LOOK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    way, *rest = done.stdout.splitlines()
    assert way.split()[0] in ("bubblewrap", "container")
    assert way.split()[1:] == ["-1", "1"]
    assert rest == ["a thread"]
