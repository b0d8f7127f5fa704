"""How the calls of a proxy share what they have in common: its event loop, its memory, its descriptors.

One process serves all calls, of all tenants. Rules:
1. A call holds so many connections. Where all calls together hold more than a number, each may hold no more
   than its part of that number, and where they hold twice as many, one. So who opens many takes them from
   nobody.
2. Bodies that are signed are kept whole. So many bytes of them are kept in all, and no call keeps more than
   it leaves to the others: whatever one keeps, as much is still free.
3. Work that takes milliseconds is done in pieces, one piece at a time, the calls by turns. Between two pieces
   everything else that is ready comes: a call that has megabytes searched delays another by one piece.
"""

from __future__ import annotations

import asyncio
import resource
from types import TracebackType

PIECE_BYTES = 16 * 1024
"""What is searched at once: 6 ms for the slowest text that is known (see scanning.py), 0.3 ms for most."""
EASY_BYTES = 4 * 1024
"""So much may be searched out of turn, once for an answer: most answers are no longer."""
KEPT_BYTES = 256 * 1024 * 1024
"""What all calls keep of requests' bodies: half of it is sixteen of the longest, one for each connection."""
_FEWEST = 1
"""Connections that a call can have whatever others hold."""
_OTHER_DESCRIPTORS = 1_000
"""Doors, lookups, and what Python and OpenSSL open."""


class Shares:
    """What all calls hold together."""

    def __init__(self, connections_over_all: int) -> None:
        """Begin with nothing held.

        Args:
            connections_over_all: Of all calls, each with one to its target; fewer where this process may not
                have so many descriptors.
        """
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = max(_FEWEST, (most - min(_OTHER_DESCRIPTORS, most // 2)) // 2)
        self._most = (
            connections_over_all if most == resource.RLIM_INFINITY else min(connections_over_all, room)
        )
        self._held = self._calls = 0
        self._free_bytes = KEPT_BYTES
        self._working = asyncio.Lock()

    def open(self, at_once: int) -> Share:
        """Begin a call's share.

        Args:
            at_once: Connections that it may hold.
        """
        self._calls += 1
        return Share(self, at_once)

    def close(self) -> None:
        """End a call's share; what it holds it lets go by itself."""
        self._calls -= 1

    def take(self, held: int) -> bool:
        """Take a connection for a call that holds some; False where that would be more than its part."""
        if self._held >= self._most:
            part = _FEWEST if self._held >= 2 * self._most else self._most // max(1, self._calls)
            if held >= max(_FEWEST, part):
                return False
        self._held += 1
        return True

    def give_back(self) -> None:
        """Give a connection back."""
        self._held -= 1

    def take_bytes(self, kept: int, more: int) -> bool:
        """Keep more for a call that keeps some; False where it would leave less to all others."""
        if kept + more > self._free_bytes - more:
            return False
        self._free_bytes -= more
        return True

    def give_bytes_back(self, count: int) -> None:
        """Keep so many bytes less."""
        self._free_bytes += count

    @property
    def working(self) -> asyncio.Lock:
        """Is held by the one that works."""
        return self._working


class Share:
    """What one call holds.

    Attributes:
        is_open: Whether something can be taken still.
    """

    def __init__(self, shares: Shares, at_once: int) -> None:
        self._shares, self._at_once = shares, at_once
        self._held = self._kept_bytes = 0
        self._own = asyncio.Lock()
        self.is_open = True

    def find_problem(self) -> str:
        """Take a connection; where there is none to be had, say why."""
        if self._held >= self._at_once:
            return f"the call holds {self._at_once} connections already, and may hold no more"
        if not self.is_open or not self._shares.take(self._held):
            return (
                f"all calls together hold too many connections, and this one {self._held} of them; try again"
            )
        self._held += 1
        return ""

    def give_back(self) -> None:
        """Give a connection back."""
        self._held -= 1
        self._shares.give_back()

    def find_problem_with_bytes(self, more: int) -> str:
        """Keep so many bytes more of bodies; where there is no room for them, say why."""
        if not self.is_open or not self._shares.take_bytes(self._kept_bytes, more):
            return "too much is kept of bodies that wait to be signed, of this call or of all; try again"
        self._kept_bytes += more
        return ""

    def give_bytes_back(self, count: int) -> None:
        """Keep so many bytes less."""
        self._kept_bytes -= count
        self._shares.give_bytes_back(count)

    def close(self) -> None:
        """End it: nothing more can be taken."""
        if self.is_open:
            self.is_open = False
            self._shares.close()

    def work(self) -> Work:
        """Hold the loop for one piece of work, when it is this call's turn."""
        return Work(self._own, self._shares.working)

    def pause(self) -> Work:
        """Let everything come that is ready, after something short: a small packed answer may be long."""
        return Work()


class Work:
    """One piece of work: no other is done beside it, and of each call one at most waits for that."""

    def __init__(self, *locks: asyncio.Lock) -> None:
        self._locks = locks
        self._held: list[asyncio.Lock] = []

    async def __aenter__(self) -> None:
        """Wait for the turn: first among the call's own connections, then among all calls."""
        try:
            for lock in self._locks:
                await lock.acquire()
                self._held.append(lock)
        except BaseException:
            self._release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let everything come that is ready, then the next piece."""
        try:
            await asyncio.sleep(0)
        finally:
            self._release()

    def _release(self) -> None:
        for lock in reversed(self._held):
            lock.release()
        self._held.clear()
