"""What is alive of a sandbox, by what the kernel shows: its cgroup, and the user of its processes.

A control's survivors are counted without its first process and init: the tool's own are what matters there.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sandboxes.hardening import ENTRYPOINT
from sandboxes.outcome import OutcomeKind
from sandboxes.sandbox import Sandbox
from tests.attacks.arena import Attack, Ground, Judge, Verdict
from tests.attacks.weakened import setting

DEADLINE_SECONDS = 1.5
_ANSWER_SECONDS = 1.0
"""What an answer may take beyond the deadline."""
_GONE_SECONDS = 2.0
"""When nothing may be left after the answer."""

_STAY = """
import signal, subprocess, sys
subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pause()
"""
STAYING = setting(
    "a first process that stays when init ends", "Entrypoint", (*ENTRYPOINT[:-1], "-c", _STAY, *ENTRYPOINT)
)


def alive(sandbox: Sandbox, *, tools_only: bool = False, unburied: bool = False) -> list[int]:
    """The processes of a sandbox that have not ended, by their ids on the host.

    Args:
        sandbox: Whose.
        tools_only: Without init and the first process; works where the host sees command lines.
        unburied: With those that have ended and that nobody waited for.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            belongs = int(status["Uid"].split()[0]) == sandbox.uid or (
                sandbox.container_id in (folder / "cgroup").read_text()
            )
            ours = tools_only and b"init.pyc" in (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if belongs and not ours and (unburied or status["State"].split()[0] != "Z"):
            found.append(int(folder.name))
    return found


def count_tasks(sandbox: Sandbox) -> int:
    """The processes and threads of a sandbox, as the host counts them."""
    return sum(_count_entries(Path(f"/proc/{pid}/task")) for pid in alive(sandbox, unburied=True))


def count_inodes(sandbox: Sandbox) -> int:
    """The inodes that a sandbox has in use where its processes see /tmp, as the host counts them."""
    most = 0
    for pid in alive(sandbox):
        try:
            mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            if any(line.split()[4] == "/tmp" and " - tmpfs " in line for line in mounts):
                state = os.statvfs(f"/proc/{pid}/root/tmp")
                most = max(most, state.f_files - state.f_ffree)
        except OSError:
            continue
    return most


def seen_from_host(count: Callable[[Sandbox], int], won: Mapping[str, int], most: Mapping[str, int]) -> Judge:
    """Make the judge of a bomb that is told by what it takes of the host's.

    Args:
        count: Tells how much a sandbox has.
        won: What it wants, by runtime; "" for all that are not named.
        most: What it may have, likewise.
    """

    async def judge(attack: Attack, ground: Ground) -> Verdict:
        async with ground.create(**attack.spec) as sandbox:
            call = asyncio.create_task(ground.tell(sandbox, attack.program))
            taken = 0
            while not call.done():
                taken = max(taken, await asyncio.to_thread(count, sandbox))
                await asyncio.sleep(0.02)
            outcome = await call
        ended = outcome.kind in (OutcomeKind.RESULT, OutcomeKind.CRASHED, OutcomeKind.TIMED_OUT)
        allowed = most.get(ground.runtime, most[""])
        told = f"{outcome.kind} {outcome.detail}, at most {taken} of the host's"
        return Verdict(taken >= won.get(ground.runtime, won[""]), told, ended and taken <= allowed)

    return judge


def _count_entries(folder: Path) -> int:
    try:
        return len(list(folder.iterdir()))
    except OSError:
        return 0


async def left_after(sandbox: Sandbox, seconds: float, *, tools_only: bool = False) -> list[int]:
    """Wait until nothing is alive, but not longer; gives what is left."""
    until = time.monotonic() + seconds
    while left := alive(sandbox, tools_only=tools_only):
        if time.monotonic() > until:
            break
        await asyncio.sleep(0.02)
    return left


def outlives(seconds: float = DEADLINE_SECONDS, *, unattended: bool = False) -> Judge:
    """Make the judge of a tool that will not end.

    It has won when its call is answered late, or when something of it is alive two seconds after the answer
    although nobody outside has ended it yet. The driver's end comes after that.

    Args:
        seconds: The deadline.
        unattended: Whether nobody reads from it and nobody waits for it, as when the broker is stuck.
    """

    async def judge(attack: Attack, ground: Ground) -> Verdict:
        async with ground.create(**attack.spec) as sandbox:
            since = time.monotonic()
            call = asyncio.create_task(ground.tell(sandbox, attack.program, seconds))
            if unattended:
                await asyncio.wait({call}, timeout=0.5)
                call.cancel()
                await asyncio.wait({call})
                await asyncio.sleep(seconds)
                told = "nobody waited"
            else:
                outcome = await call
                told = f"{outcome.kind} {outcome.detail}"
            took = time.monotonic() - since
            left = await left_after(sandbox, _GONE_SECONDS, tools_only=ground.is_control)
        late = not unattended and took > seconds + _ANSWER_SECONDS
        forever = not ground.is_control and await left_after(sandbox, _GONE_SECONDS)
        told = f"{told} after {took:.1f} s, {len(left)} processes left"
        return Verdict(bool(late or left or forever), told, not left)

    return judge
