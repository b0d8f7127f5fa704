"""Attack: a process with the supervisor's own user id looks for the broker's token in it.

The control is a process of that user that did not confine itself: its memory, its environment and what it has
open can be read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from credentials.supervisor.confinement import UNPRIVILEGED_UID
from credentials.supervisor.keeper import Supervisor
from credentials.vault import SessionTuning, VaultSession

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")

# As after an exec: a process that changed its user cannot be read at first. (The interpreter may lie where
# that user cannot start it.)
BECOME = f"""
import ctypes, os, sys
os.setgroups([])
os.setresgid(*[{UNPRIVILEGED_UID}] * 3)
os.setresuid(*[{UNPRIVILEGED_UID}] * 3)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
"""
ATTEMPTS = {
    "memory": "open(f'/proc/{pid}/mem', 'rb').close()",
    "environment": "open(f'/proc/{pid}/environ', 'rb').read()",
    "descriptors": "os.listdir(f'/proc/{pid}/fd')",
    "trace": "sys.exit(ctypes.CDLL(None).ptrace(16, int(pid), 0, 0) != 0)",
}


@pytest.fixture
async def supervisor(dev_vault) -> AsyncIterator[int]:
    """The process id of a supervisor that holds a token."""
    keepers: list[Supervisor] = []

    def make(api) -> Supervisor:
        keepers.append(Supervisor(api, 5.0))
        return keepers[0]

    session = VaultSession(dev_vault.address, dev_vault.login, SessionTuning(keeper=make))
    await session.open()
    assert keepers[0].pid is not None
    yield keepers[0].pid
    await session.close()


@pytest.fixture
def careless() -> Iterator[int]:
    """The process id of another process of the same user."""
    command = [sys.executable, "-I", "-S", "-c", f"{BECOME}print(flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def attempt(what: str, pid: int) -> bool:
    """Try it as that user; True when it works."""
    code = f"{BECOME}pid = sys.argv[1]; {ATTEMPTS[what]}"
    command = [sys.executable, "-I", "-S", "-c", code, str(pid)]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("what", ATTEMPTS)
async def test_gets_nothing_by_its_user_id(supervisor: int, careless: int, what: str) -> None:
    assert attempt(what, careless)
    assert not attempt(what, supervisor)
