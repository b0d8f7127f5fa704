"""Attacks on what an earlier sandbox left, and on what the kernel keeps by user or by file."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.attacks.arena import ABSENT, REFUSALS, Attack, Control, Ground, Verdict
from tests.attacks.families.neighbours import CANARY, FAMILY, NO_FILTER
from tests.attacks.residents import beside

PIPES = "import fcntl\npipes = [os.pipe() for _ in range(100)]\n"
# 100 pipes of a MiB are more than a user's share (pipe-user-pages-soft); then new ones are small.
TAKE_ALL_PIPES = (
    PIPES
    + """
for near, _ in pipes:
    try:
        fcntl.fcntl(near, 1031, 1 << 20)
    except OSError:
        break
wait()
answer = "unharmed"
"""
)

KEEP = """
import glob
places = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/run/lock", "/opt/bundle", "/home", "/"]
kept = 0
for place in places:
    try:
        write(f"{place}/{canary}", canary)
        kept += 1
    except OSError:
        pass
answer = f"kept {kept}"
"""

FIND = """
def hunt():
    for place, folders, files in os.walk("/"):
        if place == "/":
            folders[:] = [name for name in folders if name not in ("proc", "sys")]
        if canary in files:
            return
    raise OSError(errno.ENOENT, "nothing was found")
step("find", hunt)
"""


async def after_another(attack: Attack, ground: Ground) -> Verdict:
    """Judge an attack from a sandbox that comes after one that kept what it could."""
    ground = replace(ground, values={**ground.values, **CANARY})
    kept = await ground.answer(KEEP)
    alone = replace(attack, judge=None, host=lambda _: nullcontext(ground.values))
    verdict = await alone.try_on(ground)
    return replace(verdict, told=f"{kept}, {verdict.told}")


@asynccontextmanager
async def common_folder(ground: Ground) -> AsyncIterator[Mapping[str, Any]]:
    """A folder of the host's that everybody may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        (Path(folder) / "shared").write_text("for a lock")
        yield {"folder": folder}


LOCK = """
import fcntl
file = open(next(path for path in ("/run/common/shared", os.__file__) if os.path.exists(path)))
"""

ATTACKS: tuple[Attack, ...] = (
    Attack(
        "finds what an earlier sandbox left in files",
        FAMILY,
        "data of a call that has ended",
        FIND,
        Control(without=("tmp",), binds={"/tmp": "folder"}),
        {"": "/tmp in memory, made for one sandbox and gone with it; all else is read-only"},
        refusals=ABSENT,
        host=common_folder,
        judge=after_another,
    ),
    Attack(
        "finds another sandbox's keys in a keyring",
        FAMILY,
        "a secret, or a channel, that the kernel keeps by user",
        "step('key', call, 249, b'user', canary.encode(), 0, 0xFFFFFFFC)\n"
        "step('search', call, 250, 10, -4, b'user', canary.encode(), 0)",
        Control(without=("seccomp",), add=(NO_FILTER,), says="both have one user, unfiltered"),
        {"": "the filter of system calls, and a user of its own for each sandbox"},
        wins=("search",),
        refusals=REFUSALS | {"ENOKEY"},
        judge=beside(
            "step('add', lambda: call(248, b'user', canary.encode(), b'secret', 6, 0xFFFFFFFC))\n"
            "wait()\nanswer = 'unharmed'",
            same_uid=True,
            values=CANARY,
        ),
    ),
    Attack(
        "uses up what the kernel gives one user",
        FAMILY,
        "a neighbour that gets no more pipes",
        """
import fcntl
near, _ = os.pipe()
size = fcntl.fcntl(near, 1032)
answer = f"a pipe of {size} bytes"
""",
        Control(says="both have one user"),
        {"": "a user of its own for each sandbox"},
        won=lambda answer: answer in ("a pipe of 4096 bytes", "a pipe of 8192 bytes"),
        stopped=lambda answer: answer == "a pipe of 65536 bytes",
        judge=beside(TAKE_ALL_PIPES, same_uid=True),
    ),
    Attack(
        "signals to a neighbour by the lock of a shared file",
        FAMILY,
        "a channel between calls",
        LOCK
        + """
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    answer = "free"
except BlockingIOError:
    answer = "locked by a neighbour"
""",
        Control(binds={"/run/common": "folder"}, says="a file in common"),
        {"": "no inode in common: the files of an image are each sandbox's own to lock"},
        won=lambda answer: answer == "locked by a neighbour",
        stopped=lambda answer: answer == "free",
        host=common_folder,
        judge=beside(LOCK + "fcntl.flock(file, fcntl.LOCK_EX)\nwait()\nanswer = 'unharmed'"),
    ),
)
