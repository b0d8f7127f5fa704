"""Attacks that take all there is of something: processes, memory, disk, descriptors, processors, output.

No bomb is unbounded: each stops by itself at an amount that harms nobody, and has won when it came so far.
Controls raise a limit, or take one away, inside a sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from sandboxes.outcome import OutcomeKind
from sandboxes.runtimes import RUNSC
from sandboxes.sandbox import Sandbox
from tests.attacks.arena import ABSENT, DENIED, Attack, Control, Ground, Verdict
from tests.attacks.judges import at_least, at_most, ends_as
from tests.attacks.survivors import count_inodes, count_tasks, seen_from_host

FAMILY = "bombs"
LOOKS, LOOK_SECONDS = 5, 1.5
HELD_BACK = 0.3
"""Of 0.25 processors, no look can show more than this."""
MANY = {"": 200, "docker-runsc": 24 + RUNSC.extra_pids + 100}
"""So many processes are more than a sandbox of the obedient tool may have."""


@asynccontextmanager
async def tell_many(ground: Ground) -> AsyncIterator[Mapping[str, Any]]:
    """Tell a program how many processes to try."""
    yield {"many": MANY.get(ground.runtime, MANY[""])}


async def _read_log(attack: Attack, ground: Ground) -> Verdict:
    outcome = await ground.run(attack.program, **attack.spec)
    answered = outcome.kind is OutcomeKind.RESULT
    size = len(outcome.log)
    stopped = answered and size < ground.obedient.limits.log_kib * 1024 + 200 and outcome.log_truncated
    return Verdict(answered and size >= 1_990_000, f"{outcome.kind}, a log of {size} bytes", stopped)


async def _measure(attack: Attack, ground: Ground) -> Verdict:
    """Compare the processor time that a sandbox got with the time that passed: the most of a few looks.

    A machine that is busy gives less than it may have to who is not held back, too.
    """
    limits = replace(ground.obedient.limits, cpus=0.25)
    ground = replace(ground, obedient=replace(ground.obedient, limits=limits))
    share = 0.0
    async with ground.create(**attack.spec) as sandbox:
        call = asyncio.create_task(ground.tell(sandbox, attack.program))
        await asyncio.sleep(1.0)
        for _ in range(LOOKS):
            share = max(share, await _find_share(sandbox))
            if share > HELD_BACK:
                break
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    return Verdict(share > HELD_BACK, f"{share:.2f} processors", share <= HELD_BACK)


async def _find_share(sandbox: Sandbox) -> float:
    since, before = time.monotonic(), sandbox.cpu_seconds()
    await asyncio.sleep(LOOK_SECONDS)
    after, passed = sandbox.cpu_seconds(), time.monotonic() - since
    assert before is not None
    assert after is not None
    return (after - before) / passed


FREE_PROCESSES = Control(without=("pids", "processes-inside", "memory", "no-swap"))
FEW_PROCESSES = {
    "": "the limit of processes",
    "docker-runsc": "a limit of what gVisor takes of the host for them, past which the sandbox ends",
}
MOST_TASKS = {"": 24 + 3, "docker-runsc": 24 + 1 + RUNSC.extra_pids}
INODES = {
    "": "the inodes of /tmp",
    "docker-runsc": "gVisor keeps /tmp in its own memory, which is limited: no inode of the host's",
}
LARGE_TMP = Control(limits={"tmp_mib": 64})
LARGE_OUTPUT = Control(limits={"output_kib": 8192})

_PROCESSES = (
    Attack(
        "multiplies by processes",
        FAMILY,
        "the host's processes",
        """
children = []
try:
    for _ in range(many):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except OSError:
    pass
answer = len(children)
time.sleep(1)
""",
        FREE_PROCESSES,
        FEW_PROCESSES,
        host=tell_many,
        judge=seen_from_host(count_tasks, MANY, MOST_TASKS),
    ),
    Attack(
        "multiplies by threads",
        FAMILY,
        "the host's processes",
        """
import threading
threading.stack_size(65536)
count = 0
try:
    for _ in range(many):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
answer = count
time.sleep(1)
""",
        FREE_PROCESSES,
        FEW_PROCESSES,
        host=tell_many,
        judge=seen_from_host(count_tasks, MANY, MOST_TASKS),
    ),
    Attack(
        "leaves the dead unburied",
        FAMILY,
        "the host's table of processes",
        """
count, until = 0, time.monotonic() + 5
try:
    for _ in range(many):
        if os.fork() == 0:
            os._exit(0)
        count += 1
        if time.monotonic() > until:
            break
except OSError:
    pass
answer = count
time.sleep(1)
""",
        FREE_PROCESSES,
        FEW_PROCESSES,
        host=tell_many,
        judge=seen_from_host(count_tasks, MANY, MOST_TASKS),
    ),
)

_DISK = (
    Attack(
        "fills the disk",
        FAMILY,
        "the host's disk",
        """
def fill(path):
    with open(path, "wb", buffering=0) as file:
        for _ in range(20):
            file.write(bytes(1 << 20))
for folder in ("/", "/opt/bundle", "/var/tmp", "/run", "/home", "/usr/lib"):
    step(folder, fill, folder.rstrip("/") + "/block")
""",
        Control(without=("read-only-root", "identity", "no-capabilities", "file-size")),
        {"": "a root that is read-only, and a user that owns nothing of it"},
        refusals=DENIED | ABSENT | {"EROFS"},
        wins=("/", "/opt/bundle", "/run", "/usr/lib"),
    ),
    Attack(
        "fills /tmp",
        FAMILY,
        "more than its share",
        """
answer = 0
try:
    for number in range(20):
        write(f"/tmp/{number}", "x" * (1 << 20))
        answer += 1
except OSError:
    pass
""",
        LARGE_TMP,
        {"": "the size of /tmp"},
        won=at_least(20),
        stopped=at_most(8),
    ),
    Attack(
        "fills /tmp with nothing",
        FAMILY,
        "the host's inodes",
        """
answer = 0
try:
    while answer < 5000:
        touch(f"/tmp/{answer}", "wb")
        answer += 1
except OSError:
    pass
time.sleep(1)
""",
        LARGE_TMP,
        INODES,
        judge=seen_from_host(count_inodes, {"": 5000}, {"": 2048}),
    ),
    Attack(
        "digs deep",
        FAMILY,
        "folders that nobody can remove",
        """
answer = 0
os.chdir("/tmp")
try:
    while answer < 5000:
        os.mkdir("d")
        os.chdir("d")
        answer += 1
except OSError:
    pass
time.sleep(1)
""",
        LARGE_TMP,
        INODES,
        judge=seen_from_host(count_inodes, {"": 5000}, {"": 2048}),
    ),
    Attack(
        "makes a file that is larger than all",
        FAMILY,
        "a file that fills whoever copies it",
        """
with open("/tmp/holes", "wb") as file:
    step("truncate", os.truncate, "/tmp/holes", 1 << 40)
    step("write far", os.pwrite, file.fileno(), b"x", 1 << 30)
    step("allocate", os.posix_fallocate, file.fileno(), 0, 1 << 30)
""",
        Control(without=("file-size",)),
        {"": "the limit of a file's size"},
        refusals=frozenset({"EFBIG", "ENOSPC"}),
        wins=("truncate", "write far"),
    ),
    Attack(
        "leaves a core",
        FAMILY,
        "a credential on the host's disk",
        "limit = struct.pack('QQ', 1 << 20, 1 << 20)\nstep('raise', call, 302, 0, 4, limit, 0)",
        Control(without=("no-core",)),
        {"": "the limit of core files, which is none"},
    ),
)

_DESCRIPTORS = (
    Attack(
        "opens files without end",
        FAMILY,
        "the kernel's open files",
        """
files = []
try:
    while len(files) < 2000:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
answer = len(files)
""",
        Control(without=("open-files",)),
        {"": "the limit of open files"},
        won=at_least(2000),
        stopped=at_most(256),
    ),
    Attack(
        "opens events without end",
        FAMILY,
        "the kernel's memory",
        """
import select
count, polls = 0, []
try:
    while count < 2000:
        os.eventfd(0)
        polls.append(select.epoll())
        polls[-1].register(4, select.EPOLLOUT)
        call(283, 1, 0)
        count += 3
except OSError:
    pass
answer = count
""",
        Control(without=("open-files",)),
        {"": "the limit of open files"},
        won=at_least(2000),
        stopped=at_most(256),
    ),
    Attack(
        "watches files",
        FAMILY,
        "the kernel's memory, and what others do with shared files",
        "step('inotify', call, 294, 0)\nstep('old inotify', call, 253)",
        Control(without=("seccomp",)),
        {"": "the filter of system calls"},
    ),
)

_OUTPUT = (
    Attack(
        "answers too much",
        FAMILY,
        "the broker's memory",
        "answer = 'x' * (1 << 20)",
        LARGE_OUTPUT,
        {"": "the cap of output, in init and again outside"},
        judge=ends_as(OutcomeKind.OUTPUT_TOO_LARGE),
    ),
    Attack(
        "reports progress without end",
        FAMILY,
        "the broker's memory and time",
        "for _ in range(5000):\n    context.progress('x' * 200)",
        LARGE_OUTPUT,
        {"": "the cap of output, in init and again outside"},
        judge=ends_as(OutcomeKind.OUTPUT_TOO_LARGE),
    ),
    Attack(
        "sends tiny frames without end",
        FAMILY,
        "the broker's time",
        "for _ in range(100):\n    os.write(4, b'\\0\\0\\0\\2\\x0a\\0' * 1000)",
        LARGE_OUTPUT,
        {"": "the cap of output, in init and again outside"},
        judge=ends_as(OutcomeKind.OUTPUT_TOO_LARGE),
    ),
    Attack(
        "claims a frame of 4 GiB",
        FAMILY,
        "a broker that waits, or makes room for it",
        "os.write(4, (4_294_966_000).to_bytes(4, 'big') + b'x' * 1000)\ntime.sleep(60)",
        Control(limits={"output_kib": 4_194_303}),
        {"": "the cap of output, which a frame's length is compared with first"},
        judge=ends_as(OutcomeKind.OUTPUT_TOO_LARGE, won=OutcomeKind.TIMED_OUT, seconds=3.0),
    ),
    Attack(
        "floods its log",
        FAMILY,
        "the broker's memory, or an answer that does not come",
        "import sys\nfor _ in range(1000):\n    print('y' * 999)\n    sys.stderr.write('z' * 999 + '\\n')",
        Control(limits={"log_kib": 8192}),
        {"": "the cap of the log, past which it is cut"},
        judge=_read_log,
    ),
)

SPIN = """
until = time.monotonic() + 10
for _ in range(3):
    if os.fork() == 0:
        while time.monotonic() < until:
            pass
        os._exit(0)
while time.monotonic() < until:
    pass
"""

_PROCESSORS = (
    Attack(
        "takes the processors",
        FAMILY,
        "calls of others that get slow",
        SPIN,
        Control(without=("cpus",)),
        {"": "the limit of processor time"},
        judge=_measure,
    ),
)


ATTACKS: tuple[Attack, ...] = (
    *_PROCESSES,
    *_DISK,
    *_DESCRIPTORS,
    *_OUTPUT,
    *_PROCESSORS,
)
