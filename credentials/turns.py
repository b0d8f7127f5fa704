"""Who may ask Vault now: one call at a time for a login that exists once, and so many at once for all."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection

from credentials.errors import Cause, CredentialsUnavailable

Turn = tuple[str, str]
"""Engine and role."""


class Turns:
    """Who has which login. A login whose end is owed stays taken: its next user would share its password."""

    def __init__(self) -> None:
        self._locks: defaultdict[Turn, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._owners: defaultdict[Turn, set[str]] = defaultdict(set)

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
        self._owners[turn].add(accessor)

    def fail(self, turn: Turn, owed: Collection[str]) -> None:
        """Free a login that was taken and given to nobody, unless the end of child tokens is owed."""
        self._owners[turn].update(owed)
        self._free(turn)

    async def hold(self, turn: Turn, accessor: str) -> None:
        """Take a login for an end that an earlier run left owed: nobody gets it before that end."""
        if not self._owners[turn]:
            await self._locks[turn].acquire()
        self._owners[turn].add(accessor)

    def may_end(self, turn: Turn, accessor: str) -> bool:
        """Tell whether no other child token has the login."""
        owners = self._owners.get(turn, set())
        return not owners or accessor in owners

    def end(self, turn: Turn, accessor: str) -> None:
        """Free a login after its owner's end; another's end changes nothing."""
        if accessor in self._owners.get(turn, ()):
            self._owners[turn].discard(accessor)
            self._free(turn)

    def _free(self, turn: Turn) -> None:
        if not self._owners[turn]:
            del self._owners[turn]
            self._locks[turn].release()


class Room:
    """A place among the requests under way, or a refusal when none ends in time."""

    def __init__(self, most: int, timeout_seconds: float) -> None:
        self._places = asyncio.Semaphore(most)
        self._most, self._timeout_seconds = most, timeout_seconds

    async def __aenter__(self) -> None:
        """Take a place.

        Raises:
            CredentialsUnavailable: OVERLOADED.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._places.acquire()
        except TimeoutError as error:
            text = f"{self._most} requests are under way and none ends; try again"
            raise CredentialsUnavailable(text, Cause.OVERLOADED) from error

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self._places.release()


class Rooms:
    """A room for each name, all of the same size."""

    def __init__(self, most: int, timeout_seconds: float) -> None:
        self._most, self._timeout_seconds = most, timeout_seconds
        self._rooms: dict[str, Room] = {}

    def of(self, name: str) -> Room:
        """Return a name's room."""
        return self._rooms.setdefault(name, Room(self._most, self._timeout_seconds))
