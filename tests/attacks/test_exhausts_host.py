"""Attack: a tool takes the host's memory, processes or open files."""

from __future__ import annotations

import pytest

from sandboxes.outcome import OutcomeKind
from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine

FORKS = """
import os, time
children = []
try:
    for _ in range(200):
        child = os.fork()
        if child == 0:
            time.sleep(30)
        children.append(child)
except OSError:
    pass
answer = len(children)
"""

MEMORY = """
block = bytearray(200 << 20)
for place in range(0, len(block), 4096):
    block[place] = 1
answer = len(block)
"""

FILES = """
files = []
try:
    while len(files) < 2000:
        files.append(open("/dev/null"))
except OSError:
    pass
answer = len(files)
"""

CORE = "import resource; answer = resource.getrlimit(resource.RLIMIT_CORE)"


async def test_cannot_multiply_without_end(obedient: Obedient) -> None:
    assert int(await obedient.answer(FORKS)) < obedient.limits.pids


async def test_multiplies_without_a_limit(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(FORKS, "pids", "memory", "no-swap") == "200"


async def test_is_ended_when_it_takes_too_much_memory(obedient: Obedient) -> None:
    outcome = await obedient.run(MEMORY)
    assert outcome.kind is OutcomeKind.CRASHED
    assert outcome.detail == "out of memory: the limit is 96 MiB"


async def test_takes_memory_without_a_limit(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(MEMORY, "memory", "no-swap") == str(200 << 20)


async def test_cannot_open_files_without_end(obedient: Obedient) -> None:
    assert int(await obedient.answer(FILES)) < 256


async def test_opens_files_without_a_limit(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(FILES, "open-files") == "2000"


async def test_cannot_dump_core(obedient: Obedient) -> None:
    assert await obedient.answer(CORE) == "(0, 0)"
