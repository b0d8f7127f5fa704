"""How many sandboxes should wait, and how much memory they may take.

The stock of one kind covers what is asked for while one is made. Sandboxes that are being made queue at the
makers, so the time until a taken one is replaced is the time to make one, longer by how busy the makers are:

    in replacement = rate x seconds to make / (1 - share of the makers that is busy)
    stock          = in replacement + 3 x its square root

The square root is the margin: the number in replacement varies like a Poisson variable (standard deviation
is the square root of the mean), and three deviations leave about one call in a hundred without a warm one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

_DEVIATIONS = 3.0
_BUSIEST = 0.85  # a rate that the makers cannot follow asks for no endless stock
_QUICK_SECONDS, _SLOW_SECONDS = 4.0, 30.0
_IDLE_MIB = 32
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class PoolTerms:
    """What the operator decides about the pool.

    Attributes:
        least_idle: How many of each kind wait while it is called at all, whatever the demand.
        max_idle: Waiting sandboxes in all; 0: none, every call gets a cold one.
        idle_seconds: A waiting one ends by itself at this age; it is replaced before.
        makers: Sandboxes that are made at once.
        max_wait_seconds: A call that would wait longer until its sandbox is begun is refused.
        memory_mib: Of all sandboxes together.
    """

    max_idle: int
    idle_seconds: float
    makers: int
    max_wait_seconds: float
    memory_mib: int
    least_idle: int = 0


class Demand:
    """How often one kind is asked for: two moving averages, so that it rises quickly and falls slowly."""

    def __init__(self) -> None:
        self.last = -math.inf
        self._weights = {_QUICK_SECONDS: 0.0, _SLOW_SECONDS: 0.0}

    def note(self, now: float) -> None:
        """Count one call."""
        self._weights = {span: weight + 1.0 for span, weight in self._aged(now).items()}
        self.last = now

    def rate(self, now: float) -> float:
        """Tell the calls a second."""
        return max(weight / span for span, weight in self._aged(now).items())

    def _aged(self, now: float) -> dict[float, float]:
        since = max(0.0, now - self.last)
        return {span: weight * math.exp(-since / span) for span, weight in self._weights.items()}


class Mean:
    """A moving average of seconds; a first guess until something was measured."""

    _SHARE = 0.2

    def __init__(self, guess: float) -> None:
        self.seconds = guess
        self._measured = False

    def note(self, seconds: float) -> None:
        """Take in one measured value."""
        share = self._SHARE if self._measured else 1.0
        self.seconds += share * (seconds - self.seconds)
        self._measured = True


def find_stock(rate: float, make_seconds: float, busy: float) -> int:
    """Say how many of one kind should wait; at least one.

    Args:
        rate: Calls a second.
        make_seconds: How long one is made, warm.
        busy: Which share of the makers' time all kinds' calls need, 0 to 1 and over.
    """
    in_replacement = rate * make_seconds / (1.0 - min(busy, _BUSIEST))
    return max(1, math.ceil(in_replacement + _DEVIATIONS * math.sqrt(in_replacement)))


def share_out(wanted: Mapping[K, int], owner: Callable[[K], str], most: int) -> dict[K, int]:
    """Share places out where more are wanted than there are: one by one, owner by owner.

    Returns:
        What each gets: all that it wants, or a part such that no owner has two more than one who goes short.
    """
    if sum(wanted.values()) <= most:
        return dict(wanted)
    given = dict.fromkeys(wanted, 0)
    kinds: dict[str, list[tuple[int, int, K]]] = {}
    for order, kind in enumerate(wanted):
        if wanted[kind]:
            kinds.setdefault(owner(kind), []).append((0, order, kind))  # a heap: it is in order
    owners = [(0, order, name) for order, name in enumerate(kinds)]
    for _ in range(most):
        held, place, name = heapq.heappop(owners)
        count, order, kind = heapq.heappop(kinds[name])
        given[kind] = count + 1
        if count + 1 < wanted[kind]:
            heapq.heappush(kinds[name], (count + 1, order, kind))
        if kinds[name]:
            heapq.heappush(owners, (held + 1, place, name))
    return given


def running_mib(limit_mib: int, overhead_mib: int) -> int:
    """Say what a sandbox with a call may take: its limit, and what stands around it."""
    return limit_mib + overhead_mib


def idle_mib(limit_mib: int, overhead_mib: int) -> int:
    """Say what a waiting sandbox is charged: it cannot come near its limit, as it does not run.

    A loaded Python handler that waits takes 12 MiB under runc, 30 with its sentry under runsc (measured by
    its memory cgroup). One that takes more is held by its limit, and is charged all of it once a call has it.
    """
    return min(limit_mib, _IDLE_MIB) + overhead_mib


def half_of_host_mib(meminfo: Path = _MEMINFO) -> int:
    """Read how much memory sandboxes may take where the operator does not say: half of MemTotal."""
    for line in meminfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) // 2048
    raise ValueError(f"{meminfo} does not say MemTotal; set sandboxes.memory_mib")
