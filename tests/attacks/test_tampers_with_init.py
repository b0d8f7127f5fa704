"""Attack: a tool has the same uid as init, so it rewrites init's deadline, starves it or ends it."""

from __future__ import annotations

import pytest

from sandboxes.outcome import OutcomeKind
from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine

OPEN_MEMORY = """
import os
def attempt(pid):
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0):
            return "open"
    except OSError as error:
        return error.strerror
"""
# The control is a process of the same uid that did not protect itself.
OPEN_MEMORY_OF_CHILD = """
child = os.fork()
if child == 0:
    import time; time.sleep(30)
answer = attempt(child)
os.kill(child, 9)
"""

LIMIT_INIT = """
import resource
try:
    resource.prlimit(1, resource.RLIMIT_NOFILE, (64, 64))
    answer = "limited"
except OSError as error:
    answer = type(error).__name__
"""

SLOW_INIT = """
import os
answer = []
for attempt in (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.sched_setaffinity(1, {0})):
    try:
        attempt()
        answer.append("slowed")
    except OSError as error:
        answer.append(error.strerror)
"""


async def test_cannot_write_the_memory_of_init(obedient: Obedient) -> None:
    assert await obedient.answer(OPEN_MEMORY + "answer = attempt(1)") == "Permission denied"


async def test_can_write_the_memory_of_an_unprotected_process(obedient: Obedient) -> None:
    assert await obedient.answer(OPEN_MEMORY + OPEN_MEMORY_OF_CHILD) == "open"


async def test_cannot_see_the_descriptors_of_init(obedient: Obedient) -> None:
    program = "import os\ntry: answer = os.listdir('/proc/1/fd')\nexcept OSError as e: answer = e.strerror"
    assert await obedient.answer(program) == "Permission denied"


async def test_cannot_limit_init(obedient: Obedient) -> None:
    assert await obedient.answer(LIMIT_INIT) == "PermissionError"


async def test_can_limit_init_without_our_seccomp(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(LIMIT_INIT, "seccomp") == "limited"


async def test_cannot_slow_init_down(obedient: Obedient) -> None:
    assert await obedient.answer(SLOW_INIT) == str(["Operation not permitted"] * 2)


async def test_can_slow_init_down_without_our_seccomp(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(SLOW_INIT, "seccomp") == str(["slowed"] * 2)


@pytest.mark.parametrize("sign", ["SIGKILL", "SIGSTOP", "SIGINT", "SIGTERM", "SIGSEGV"])
async def test_cannot_end_or_stop_init(obedient: Obedient, sign: str) -> None:
    program = f"import os, signal, time; os.kill(1, signal.{sign}); time.sleep(0.2); answer = 'still here'"
    assert await obedient.answer(program) == "still here"


async def test_cannot_hold_up_the_deadline(obedient: Obedient) -> None:
    program = """
import os, signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True:
    if os.fork() == 0:
        while True: os.kill(1, signal.SIGSTOP)
    time.sleep(0.01)
"""
    outcome = await obedient.run(f"try:\n{_indent(program)}\nexcept OSError:\n while True: pass", 1.5)
    assert outcome.kind is OutcomeKind.TIMED_OUT


def _indent(text: str) -> str:
    return "\n".join(" " + line for line in text.splitlines())
