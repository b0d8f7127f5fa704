"""Attack: a tool looks for a place that it can write to; what it would do there is among families/."""

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

WRITABLE = """
import os
folders = (path for path, _, _ in os.walk("/") if not path.startswith("/proc"))
answer = sorted(path for path in folders if os.access(path, os.W_OK))
"""


async def test_cannot_change_the_image_even_as_root(obedient: Obedient) -> None:
    assert await obedient.answer_unprotected(CHANGE, "identity") == str(["EROFS"] * 4)


async def test_finds_nothing_to_write_but_tmp(obedient: Obedient) -> None:
    assert await obedient.answer(WRITABLE) == "['/dev/mqueue', '/tmp']"


async def test_cannot_use_the_message_queues(obedient: Obedient) -> None:
    program = "try: open('/dev/mqueue/q', 'w'); answer = 'made'\nexcept OSError as e: answer = 'refused'"
    assert await obedient.answer(program) == "refused"
