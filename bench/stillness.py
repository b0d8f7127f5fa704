"""Waits until the machine has nothing to do: what a container leaves to the kernel goes on after its end.

Network namespaces, mounts and control groups are taken down by kernel threads, for a tenth of a second and
more after a container is gone. A call that is timed meanwhile is timed with somebody else's work.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_WINDOW_SECONDS = 0.03
_STILL_WINDOWS = 2
_BUSIEST = 0.05
_LONGEST_SECONDS = 3.0


async def wait_for_stillness() -> None:
    """Return when the processors were idle for a moment, or after some seconds where they never are."""
    until, still = time.monotonic() + _LONGEST_SECONDS, 0
    while still < _STILL_WINDOWS and time.monotonic() < until:
        before = _read_times()
        await asyncio.sleep(_WINDOW_SECONDS)
        busy, whole = (now - then for now, then in zip(_read_times(), before, strict=True))
        still = still + 1 if busy <= _BUSIEST * max(whole, 1) else 0


def _read_times() -> tuple[int, int]:
    """Read how long the processors were busy, and all their time, in ticks of 10 ms (proc_stat(5))."""
    times = [int(word) for word in _STAT.read_text().split("\n", 1)[0].split()[1:]]
    return sum(times) - times[3] - times[4], sum(times)
