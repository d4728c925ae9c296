"""The system calls that a sandboxed program may make, as a seccomp filter for x86_64 and aarch64.

The calls that Python programs need are allowed; all others fail with EPERM. Calls that are newer
than the table fail with ENOSYS, for which C libraries have fallbacks. Not allowed are, among
others: ptrace and access to another process's memory, limits or priority; new namespaces and
mounts; shared memory, semaphores and message queues (they outlive a process, and no limit counts
them); keyrings, io_uring, bpf, perf, userfaultfd, kexec.

A filter is a program in the kernel's classic BPF. `program` assembles it from the table.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

#: Each call's number on x86_64 and on aarch64; `-` if the machine does not have the call.
ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69,
pwritev 296 70, preadv2 327 286, pwritev2 328 287, lseek 8 62, sendfile 40 71,
copy_file_range 326 285, splice 275 76, open 2 -, openat 257 56, openat2 437 437, creat 85 -,
close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24, fcntl 72 25, ioctl 16 29,
flock 73 32, fsync 74 82, fdatasync 75 83, sync_file_range 277 84, fadvise64 221 223,
readahead 187 213, truncate 76 45, ftruncate 77 46, fallocate 285 47, stat 4 -, fstat 5 80,
lstat 6 -, newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44, access 21 -,
faccessat 269 48, faccessat2 439 439, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49,
fchdir 81 50, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34,
rmdir 84 -, link 86 -, linkat 265 37, unlink 87 -, unlinkat 263 35, symlink 88 -, symlinkat 266 36,
readlink 89 -, readlinkat 267 78, mknod 133 -, mknodat 259 33, chmod 90 -, fchmod 91 52,
fchmodat 268 53, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, umask 95 166, utime 132 -,
utimes 235 -, futimesat 261 -, utimensat 280 88, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10,
listxattr 194 11, llistxattr 195 12, flistxattr 196 13, pipe 22 -, pipe2 293 59, poll 7 -,
ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -, epoll_create1 291 20,
epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -,
eventfd2 290 19, signalfd 282 -, signalfd4 289 74, timerfd_create 283 85, timerfd_settime 286 86,
timerfd_gettime 287 87, socket 41 198, socketpair 53 199, connect 42 203, accept 43 202,
accept4 288 242, bind 49 200, listen 50 201, getsockname 51 204, getpeername 52 205,
setsockopt 54 208, getsockopt 55 209, shutdown 48 210, sendto 44 206, recvfrom 45 207,
sendmsg 46 211, recvmsg 47 212, sendmmsg 307 269, recvmmsg 299 243, mmap 9 222, munmap 11 215,
mremap 25 216, mprotect 10 226, madvise 28 233, msync 26 227, mincore 27 232, brk 12 214,
pkey_mprotect 329 288, pkey_alloc 330 289, pkey_free 331 290, clone 56 220, fork 57 -, vfork 58 -,
execve 59 221, execveat 322 281, exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95,
kill 62 129, tkill 200 130, tgkill 234 131, pidfd_open 434 434,
getpid 39 172, getppid 110 173, gettid 186 178, getpgid 121 155, getpgrp 111 -, setpgid 109 154,
getsid 124 156, setsid 112 157, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
getresuid 118 148, getresgid 120 150, getgroups 115 158, capget 125 90, prctl 157 167,
arch_prctl 158 -, set_tid_address 218 96, set_robust_list 273 99, get_robust_list 274 100,
rseq 334 293, membarrier 324 283, futex 202 98, futex_waitv 449 449, restart_syscall 219 128,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -, alarm 37 -,
nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114,
gettimeofday 96 169, time 201 -, times 100 153, getitimer 36 102, setitimer 38 103,
timer_create 222 107, timer_settime 223 110, timer_gettime 224 108, timer_getoverrun 225 109,
timer_delete 226 111, getrlimit 97 163, setrlimit 160 164, prlimit64 302 261, getrusage 98 165,
getpriority 140 141, sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121,
sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126,
sched_rr_get_interval 148 127, getcpu 309 168, sysinfo 99 179, uname 63 160, getrandom 318 278
"""

#: Families of sockets: AF_UNIX, AF_INET, AF_INET6.
FAMILIES = (1, 2, 10)
#: All CLONE_NEW* flags of clone. Those of clone3 are in memory, which a filter cannot read.
NEW_NAMESPACES = 0x7E02_0000
#: ioctl: put input into a terminal (TIOCSTI, TIOCLINUX).
TERMINAL_INPUT = (0x5412, 0x541C)
#: Targets of signals that are refused: the caller's process group (0), to which the test runner
#: belongs, and process 1, the test runner itself.
TEST_RUNNER = (0, 1)
#: fcntl: have the kernel send signals to another process (F_SETOWN, F_SETSIG, F_SETOWN_EX).
SIGNALS_FROM_FILES = (8, 10, 15)

# Instructions of classic BPF: load a word; jump if equal, if >=, if any bit is set; return.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF_0000, 0x0005_0000
DENY, UNKNOWN = FAIL | errno.EPERM, FAIL | 38  # ENOSYS, by Linux's number
# Offsets in struct seccomp_data of the call's number and the architecture; arguments start at 16.
NUMBER, ARCHITECTURE = 0, 4

Instruction = tuple[int, int, int, int]
"""Operation code, instructions to skip if the condition holds and if it does not, and operand."""


#: Numbers that are the same on both machines: clone3, and the first call newer than the table.
CLONE3, FIRST_UNKNOWN = 435, 451


@dataclass(frozen=True)
class Machine:
    """An architecture.

    Attributes:
        audit: its AUDIT_ARCH number.
        column: its column of the table.
    """

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000_003E, 0), "aarch64": Machine(0xC000_00B7, 1)}


def numbers(machine: Machine) -> dict[str, int]:
    """Return the numbers of the allowed calls on a machine, by name."""
    rows = (row.split() for row in ALLOWED.replace("\n", " ").split(","))
    return {name: int(row[machine.column]) for name, *row in rows if row[machine.column] != "-"}


def program(machine: str) -> bytes:
    """Return the filter for a machine (`platform.machine()`) as bytes of a `sock_filter[]`.

    Raises:
        KeyError: there is no table for this machine.
    """
    return b"".join(struct.pack("<HBBI", *step) for step in assemble(MACHINES[machine]))


def assemble(machine: Machine) -> list[Instruction]:
    """Return the instructions of the filter for a machine."""
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, DENY),  # the 32-bit calls of the same processor
        (LOAD, 0, 0, NUMBER),
    ]
    for name, number in numbers(machine).items():
        rule = _rule(name)
        steps += [(EQUAL, 0, len(rule), number), *rule]
    # Without clone3 the C library uses clone, whose flags a filter can read.
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, UNKNOWN)]
    steps += [(AT_LEAST, 0, 1, FIRST_UNKNOWN), (RETURN, 0, 0, UNKNOWN)]
    return [*steps, (RETURN, 0, 0, DENY)]


def _rule(name: str) -> list[Instruction]:
    """Return the instructions that decide on a call of the table by its arguments."""
    if name in ("socket", "socketpair"):
        return _one_of(0, FAMILIES, ALLOW, DENY)
    if name == "prlimit64":
        return _one_of(0, (0,), ALLOW, DENY)  # the caller's own limits
    if name == "ioctl":
        return _one_of(1, TERMINAL_INPUT, DENY, ALLOW)
    if name in ("kill", "tkill", "tgkill", "pidfd_open"):
        return _one_of(0, TEST_RUNNER, DENY, ALLOW)
    if name == "fcntl":
        return _one_of(1, SIGNALS_FROM_FILES, DENY, ALLOW)
    if name == "clone":
        return [
            _argument(0),
            (ANY_BIT, 0, 1, NEW_NAMESPACES),
            (RETURN, 0, 0, DENY),
            (RETURN, 0, 0, ALLOW),
        ]
    return [(RETURN, 0, 0, ALLOW)]


def _one_of(argument: int, values: tuple[int, ...], then: int, otherwise: int) -> list[Instruction]:
    """Return instructions that return `then` if an argument is one of the values."""
    steps = [_argument(argument)]
    for value in values:
        steps += [(EQUAL, 0, 1, value), (RETURN, 0, 0, then)]
    return [*steps, (RETURN, 0, 0, otherwise)]


def _argument(number: int) -> Instruction:
    return (LOAD, 0, 0, 16 + 8 * number)
