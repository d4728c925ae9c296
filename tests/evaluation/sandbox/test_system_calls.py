"""The filter of system calls: as a program on both machines' numbers, and in the kernel."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from lori_core.evaluation.sandbox import sandbox, system_calls
from lori_core.evaluation.sandbox.sandbox import Isolation, Program, run_program, works
from lori_core.evaluation.sandbox.system_calls import ALLOW, DENY, MACHINES, UNKNOWN

ISOLATIONS = [way for way in Isolation if works(way)]
machines = pytest.mark.parametrize("machine", MACHINES)
#: Each dangerous call's numbers on x86_64 and aarch64, from the kernel's unistd.h.
DANGEROUS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "shmget": (29, 194),
    "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "io_uring_setup": (425, 425), "io_setup": (206, 0), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "vmsplice": (278, 75),
    "kexec_load": (246, 104), "init_module": (175, 105), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "fsopen": (430, 430),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30), "setuid": (105, 146),
    "personality": (135, 92), "seccomp": (317, 277), "swapon": (167, 224), "reboot": (169, 142),
    "open_by_handle_at": (304, 265), "quotactl": (179, 60), "fanotify_init": (300, 262),
}  # fmt: skip


def decide(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """Interpret the filter as the kernel does, and return what it decides."""
    audit = MACHINES[machine].audit if audit is None else audit
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    steps = list(struct.iter_unpack("<HBBI", system_calls.program(machine)))
    at = value = 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code == system_calls.RETURN:
            return operand
        if code == system_calls.LOAD:
            (value,) = struct.unpack_from("<I", data, operand)
        else:
            holds = {
                system_calls.EQUAL: value == operand,
                system_calls.AT_LEAST: value >= operand,
                system_calls.ANY_BIT: bool(value & operand),
            }[code]
            at += yes if holds else no


@machines
def test_what_python_needs_is_allowed(machine: str) -> None:
    table = system_calls.numbers(MACHINES[machine])
    assert len(set(table.values())) == len(table)
    others = dict.fromkeys(("kill", "tkill", "tgkill", "pidfd_open"), (2,))
    arguments = others | {"socket": (1,), "socketpair": (1,), "clone": (17,), "prlimit64": (0,)}
    for name, number in table.items():
        assert decide(machine, number, *arguments.get(name, ())) == ALLOW, name
    assert {"read", "openat", "execve", "mmap", "futex", "wait4", "getrandom"} <= set(table)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", {"read": 0, "mmap": 9, "execve": 59, "openat": 257, "statx": 332}),
        ("aarch64", {"read": 63, "mmap": 222, "execve": 221, "openat": 56, "statx": 291}),
    ],
)
def test_each_machine_has_its_own_numbers(machine: str, expected: dict[str, int]) -> None:
    table = system_calls.numbers(MACHINES[machine])
    assert {name: table[name] for name in expected} == expected


@machines
@pytest.mark.parametrize("name", DANGEROUS)
def test_what_could_do_harm_is_denied(machine: str, name: str) -> None:
    number = DANGEROUS[name][MACHINES[machine].column]
    assert decide(machine, number) == DENY


@machines
def test_arguments_decide_on_some_calls(machine: str) -> None:
    table = system_calls.numbers(MACHINES[machine])
    families = [family for family in range(64) if decide(machine, table["socket"], family) == ALLOW]
    assert families == [1, 2, 10]
    assert decide(machine, table["socketpair"], 40) == DENY
    assert decide(machine, table["prlimit64"], 1) == DENY
    assert decide(machine, table["prlimit64"], 1 << 32) == ALLOW  # a pid has 32 bits: 0
    assert decide(machine, table["ioctl"], 0, 0x5412) == DENY
    assert decide(machine, table["ioctl"], 0, 0x5413) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(machine, table["clone"], 17 | flag) == DENY
    assert decide(machine, table["clone"], 0x3D0F00) == ALLOW  # a thread
    for name in ("kill", "tkill", "tgkill", "pidfd_open"):
        assert [decide(machine, table[name], pid) for pid in (0, 1)] == [DENY] * 2
        assert decide(machine, table[name], 0xFFFF_FFFF) == ALLOW  # all others: not process 1
    assert [decide(machine, table["fcntl"], 0, command) for command in (8, 10, 15)] == [DENY] * 3
    assert decide(machine, 435) == UNKNOWN  # clone3
    assert decide(machine, 450) == DENY
    assert [decide(machine, number) for number in (451, 9999, 0xFFFF_FFFF)] == [UNKNOWN] * 3


def test_the_other_calls_of_the_processor_are_denied() -> None:
    assert decide("x86_64", 11, audit=0x4000_0003) == DENY  # execve of 32 bits
    assert decide("x86_64", 0x4000_0000) == UNKNOWN  # read of x32
    assert decide("aarch64", 11, audit=0x4000_0028) == DENY


def test_a_machine_without_a_table_has_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(sandbox, "_filter", sandbox._filter.__wrapped__)
    program = Program("def one(): return 1", "def check(f): assert f() == 1", "one")
    outcome = run_program(program, isolation=Isolation.namespaces)
    assert outcome.status == "error"
    assert "no filter of system calls for 'riscv64'" in outcome.detail
    assert run_program(program, isolation=Isolation.none, unsafe=True).status == "passed"


def test_nothing_runs_where_the_kernel_takes_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_filter", lambda _: "ff" * 8)
    program = Program("def one(): return 1", "def check(f): assert f() == 1", "one")
    for isolation in (*ISOLATIONS, Isolation.none):
        outcome = run_program(program, isolation=isolation, unsafe=True)
        assert outcome.status == "error"
        assert outcome.detail == (
            "the kernel takes no filter of system calls (seccomp): Invalid argument"
        )


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_the_kernel_enforces_the_filter(isolation: Isolation) -> None:
    column = MACHINES[platform.machine()].column
    numbers = {name: both[column] for name, both in DANGEROUS.items()}
    child = f"import ctypes; print(ctypes.CDLL(None).syscall({numbers['ptrace']}, 0))"
    source = f"""
import ctypes, os, resource, socket, subprocess, sys
def look():
    call = ctypes.CDLL(None, use_errno=True).syscall
    seen = {{}}
    for name, number in {numbers!r}.items():
        ctypes.set_errno(0)
        seen[name] = (call(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno())
    for family in (16, 17, 31, 38, 40):
        try:
            socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            seen[f"family {{family}}"] = (-1, error.errno)
    for pid in (1, os.getpid()):
        try:
            resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))
        except OSError as error:
            seen[f"prlimit {{pid}}"] = (-1, error.errno)
    printed = subprocess.run([sys.executable, "-S", "-c", {child!r}], stdout=subprocess.PIPE)
    return seen, printed.stdout
"""
    tests = f"""
def check(candidate):
    seen, printed = candidate()
    assert len(seen) == {len(numbers)} + 5 + 2, seen
    wrong = {{name: result for name, result in seen.items() if result != (-1, {errno.EPERM})}}
    assert wrong == {{}}, wrong
    assert printed == b"-1\\n", printed
"""
    outcome = run_program(Program(source, tests, "look"), isolation=isolation)
    assert outcome.status == "passed", outcome
