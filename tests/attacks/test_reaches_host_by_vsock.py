"""Attack: a tool talks to the hypervisor or the host over AF_VSOCK, which no network namespace confines.

The engine's default seccomp profile allows it, and a profile that names a second architecture lets it through
32-bit system calls (int 0x80) even when it refuses the 64-bit one.
"""

from __future__ import annotations

import platform

import pytest

from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine

VSOCK = """
import socket
try:
    socket.socket(40, socket.SOCK_STREAM).close()
    answer = "open"
except OSError as error:
    answer = error.strerror
"""

# socket(AF_VSOCK, SOCK_STREAM, 0) is call 359 of the 32-bit table. A child makes it: a refusal may be SIGSYS.
VSOCK_32_BIT = """
import ctypes, mmap, os
code = bytes.fromhex("53" "b867010000" "bb28000000" "b901000000" "31d2" "cd80" "5b" "c3")
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
child = os.fork()
if child == 0:
    os._exit(0 if call() >= 0 else 1)
status = os.waitpid(child, 0)[1]
answer = "open" if status == 0 else "refused"
"""


async def test_cannot_open_a_vsock(obedient: Obedient) -> None:
    assert await obedient.answer(VSOCK) == "Operation not permitted"


async def test_works_under_the_default_profile(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(VSOCK, "seccomp") == "open"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is of x86")
async def test_cannot_open_a_vsock_by_32_bit_calls(obedient: Obedient) -> None:
    assert await obedient.answer(VSOCK_32_BIT) == "refused"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is of x86")
async def test_works_by_32_bit_calls_under_the_default_profile(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(VSOCK_32_BIT, "seccomp") == "open"
