"""The guard of PID 1 that goes before the filter: what it refuses, and that it lets the rest through."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest

from sandboxes.init_guard import GuardFailed, guard

ALLOW_ALL = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)

# Applies the program on its stdin to itself, then does what its argument says.
PROBE = """
import ctypes, fcntl, os, signal, socket, sys
program = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
text = ctypes.create_string_buffer(program, len(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, ctypes.addressof(text))), 0, 0) == 0
def raw(name, *words):
    number = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "clone": (56, 220)}[name]
    done = libc.syscall(number[os.uname().machine != "x86_64"], *map(ctypes.c_ulong, words))
    if done == -1:
        raise OSError(ctypes.get_errno(), name)
    if name == "clone" and done == 0:
        os._exit(0)
try:
    eval(sys.argv[1])
except OSError as error:
    print(error.errno)
else:
    print("done")
"""


def probe(expression: str) -> str:
    """Do something under the guard alone; gives "done" or the error number."""
    program = guard(ALLOW_ALL, os.uname().machine)
    command = [sys.executable, "-c", PROBE, expression]
    return subprocess.run(command, input=program, capture_output=True, check=True).stdout.decode().strip()


@pytest.mark.parametrize(
    "expression",
    [
        "os.kill(1, 0)",
        "raw('kill', 0x1_0000_0001, 0)",  # the kernel reads the low half only
        "raw('tkill', 1, 0)",
        "raw('tgkill', 1, 1, 0)",
        "os.pidfd_open(1)",
        "fcntl.fcntl(0, 8, 1)",
        "fcntl.fcntl(0, 10, signal.SIGSTOP)",
        "fcntl.fcntl(0, 15, bytes(8))",
        "raw('clone', 0x8000 | 17, 0, 0, 0, 0)",
    ],
)
def test_refuses_what_reaches_init(expression: str) -> None:
    assert probe(expression) == "1"


@pytest.mark.parametrize(
    "expression",
    [
        "os.kill(os.getpid(), 0)",
        "raw('tgkill', os.getpid(), os.getpid(), 0)",
        "os.pidfd_open(os.getpid())",
        "fcntl.fcntl(0, fcntl.F_GETFL)",
        "fcntl.fcntl(0, fcntl.F_DUPFD, 10)",
        "raw('clone', 17, 0, 0, 0, 0)",
        "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
        "socket.socketpair()",
    ],
)
def test_lets_the_rest_through(expression: str) -> None:
    assert probe(expression) == "done"


def test_refuses_an_architecture_without_numbers() -> None:
    with pytest.raises(GuardFailed, match="aarch64, x86_64"):
        guard(ALLOW_ALL, "riscv64")
