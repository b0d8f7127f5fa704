"""Attack: a tool changes the handler, brings a program of its own to run, or fills what it can write."""

from __future__ import annotations

import pytest

from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine

CHANGE = """
import errno
answer = []
for path in ("/opt/bundle/handler.py", "/opt/toolcrib/init.pyc", "/usr/bin/new", "/etc/passwd"):
    try:
        open(path, "a").close()
        answer.append("written")
    except OSError as error:
        answer.append(errno.errorcode[error.errno])
"""

RUN_FROM_TMP = """
import shutil, subprocess
shutil.copy("/usr/bin/python3", "/tmp/program")
try:
    answer = subprocess.run(["/tmp/program", "-c", "pass"]).returncode
except OSError as error:
    answer = error.strerror
"""

RUN_FROM_MEMORY = """
import os
try:
    os.close(os.memfd_create("program"))
    answer = "made"
except OSError as error:
    answer = error.strerror
"""

FILL_SIZE = """
import errno
answer = 0
try:
    for number in range(64):
        with open(f"/tmp/{number}", "wb") as file:
            answer += file.write(bytes(1 << 20))
except OSError as error:
    answer = errno.errorcode[error.errno]
"""

FILL_INODES = """
import errno
answer = "full at last"
try:
    for number in range(10_000):
        open(f"/tmp/{number}", "wb").close()
except OSError as error:
    answer = errno.errorcode[error.errno]
"""

WRITABLE = """
import os
folders = (path for path, _, _ in os.walk("/") if not path.startswith("/proc"))
answer = sorted(path for path in folders if os.access(path, os.W_OK))
"""


async def test_cannot_change_the_image(obedient: Obedient) -> None:
    assert await obedient.answer(CHANGE) == "['EACCES', 'EACCES', 'EROFS', 'EACCES']"


async def test_cannot_change_the_image_even_as_root(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(CHANGE, "identity") == str(["EROFS"] * 4)


async def test_changes_the_image_as_root_on_a_writable_root(obedient: Obedient) -> None:
    answer = await obedient.answer_unprotected(CHANGE, "read-only-root", "identity")
    assert answer == str(["written"] * 4)


async def test_finds_nothing_to_write_but_tmp(obedient: Obedient) -> None:
    assert await obedient.answer(WRITABLE) == "['/dev/mqueue', '/tmp']"


async def test_cannot_use_the_message_queues(obedient: Obedient) -> None:
    program = "try: open('/dev/mqueue/q', 'w'); answer = 'made'\nexcept OSError as e: answer = 'refused'"
    assert await obedient.answer(program) == "refused"


async def test_cannot_run_a_program_that_it_wrote(obedient: Obedient) -> None:
    assert await obedient.answer(RUN_FROM_TMP) == "Permission denied"


async def test_runs_a_program_that_it_wrote_in_a_plain_tmp(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(RUN_FROM_TMP, "tmp", "read-only-root") == "0"


async def test_cannot_run_a_program_from_memory(obedient: Obedient) -> None:
    assert await obedient.answer(RUN_FROM_MEMORY) == "Operation not permitted"


async def test_has_files_in_memory_without_our_seccomp(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(RUN_FROM_MEMORY, "seccomp") == "made"


async def test_cannot_fill_the_disk(obedient: Obedient) -> None:
    assert await obedient.answer(FILL_SIZE) == "ENOSPC"


async def test_fills_a_plain_tmp(obedient: Obedient) -> None:
    lacking = ("tmp", "read-only-root", "memory", "no-swap")
    assert await obedient.answer_unprotected(FILL_SIZE, *lacking) == str(64 << 20)


async def test_cannot_use_up_the_inodes(obedient: Obedient) -> None:
    assert await obedient.answer(FILL_INODES) == "ENOSPC"


async def test_uses_up_inodes_in_a_plain_tmp(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(FILL_INODES, "tmp", "read-only-root") == "full at last"
