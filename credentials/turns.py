"""Turns at a login that exists once: one call has it, from its mint until its end is confirmed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

Turn = tuple[str, str]
"""Engine and role."""


class Turns:
    """Who has which login. A login whose end is owed stays taken: its next user would share its password."""

    def __init__(self) -> None:
        self._locks: defaultdict[Turn, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._owners: dict[Turn, str] = {}

    async def take(self, turn: Turn, timeout_seconds: float) -> bool:
        """Wait for a login; False when it did not come free in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._locks[turn].acquire()
        except TimeoutError:
            return False
        return True

    def belongs_to(self, turn: Turn, accessor: str) -> None:
        """Say which child token has the login that was taken."""
        self._owners[turn] = accessor

    def fail(self, turn: Turn, owed: Sequence[str]) -> None:
        """Free a login that was taken and given to nobody, unless the end of a child token is owed."""
        if owed:
            self.belongs_to(turn, owed[0])
        else:
            self._give_back(turn)

    def end(self, turn: Turn, accessor: str) -> None:
        """Free a login after its owner's end; others' ends, also of earlier runs, change nothing."""
        if self._owners.get(turn) == accessor:
            self._give_back(turn)

    def _give_back(self, turn: Turn) -> None:
        self._owners.pop(turn, None)
        self._locks[turn].release()
