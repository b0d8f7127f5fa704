"""A process that is held by a descriptor: its end, and the processor time of the cgroup it is in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_NANOSECONDS, _MICROSECONDS = 1e9, 1e6


def has_ended(process: int) -> bool:
    """Tell whether the process behind a pidfd has ended."""
    poll = select.poll()  # not select(): a broker may have more than 1,024 descriptors
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


async def wait_for_end(process: int, patience_seconds: float) -> bool:
    """Wait until the process behind a pidfd has ended.

    Returns:
        False when the patience was over first.
    """
    if has_ended(process):
        return True
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    # A copy of our own: a loop knows one reader a descriptor, and another may wait too, or close it.
    own = os.dup(process)
    try:
        loop.add_reader(own, ended.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                await ended.wait()
        return has_ended(own)
    finally:
        loop.remove_reader(own)
        os.close(own)


def find_cpu_file(cgroups: str, root: Path = _CGROUPS) -> Path | None:
    """Find the file that counts the processor time of a cgroup.

    Args:
        cgroups: What /proc/PID/cgroup says.
        root: Where the hierarchies are mounted, each version 1 controller under its name.
    """
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if "cpuacct" in controllers.split(","):
            places = [root / "cpuacct" / relative, root / controllers / relative]
            files = [place / "cpuacct.usage" for place in places]
        elif not controllers:
            files = [root / relative / "cpu.stat"]
        else:
            continue
        for file in files:
            if file.exists():
                return file
    return None


def read_cpu_file(file: Path) -> float | None:
    """Read the seconds of processor time that a cgroup has used; None when it is gone."""
    try:
        text = file.read_text()
        if file.name == "cpuacct.usage":
            return int(text) / _NANOSECONDS
        return int(text.split("usage_usec ", 1)[1].split()[0]) / _MICROSECONDS
    except (OSError, ValueError, IndexError):
        return None
