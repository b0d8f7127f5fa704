"""The system calls that are left to the worker: its socket, its memory, its clock, its end.

All others fail with EPERM: opening, signals to others, ptrace and its like, programs, namespaces. Calls by
another entry of the kernel (32 bits) end the process. The filter is classic BPF, written here, because this
layer has no other; it is loaded last and holds for good (prctl(2), PR_SET_SECCOMP).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # EPERM is 1
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4  # struct seccomp_data

_X86_64 = {
    "read": 0, "write": 1, "close": 3, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "setitimer": 38,
    "getpid": 39, "sendto": 44, "recvfrom": 45, "exit": 60, "gettid": 186, "futex": 202,
    "restart_syscall": 219, "clock_gettime": 228, "exit_group": 231, "getrandom": 318,
}  # fmt: skip
_AARCH64 = {
    "read": 63, "write": 64, "close": 57, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214,
    "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124, "mremap": 216,
    "madvise": 233, "setitimer": 103, "getpid": 172, "sendto": 206, "recvfrom": 207, "exit": 93,
    "gettid": 178, "futex": 98, "restart_syscall": 128, "clock_gettime": 113, "exit_group": 94,
    "getrandom": 278,
}  # fmt: skip
# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h.
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}


class FilterFailed(Exception):
    """The filter could not be loaded; the process must not read anything."""


class _Program(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def make_filter(architecture: int, allowed: Sequence[int]) -> bytes:
    """Write the filter: one comparison for each call that is allowed."""
    steps = [(_LOAD, 0, 0, _AT_ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    steps.append((_LOAD, 0, 0, _AT_NUMBER))
    for at, number in enumerate(allowed):
        steps.append((_EQUAL, len(allowed) - at, 0, number))
    steps += [(_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def load_filter() -> None:
    """Load it, for good.

    Raises:
        FilterFailed: There is none for this machine, or the kernel refused it.
    """
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise FilterFailed(f"no filter of system calls is written for {machine}")
    architecture, numbers = _MACHINES[machine]
    code = make_filter(architecture, sorted(numbers.values()))
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise FilterFailed(f"the kernel refused the filter: {os.strerror(ctypes.get_errno())}")
