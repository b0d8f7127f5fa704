"""What one call has of a pool, from before anything is reserved for it until it is answered."""

from __future__ import annotations

import asyncio
from typing import Protocol

from sandboxes.nests import Nest
from sandboxes.outcome import SandboxUnavailable
from sandboxes.pool_lull import Lull
from sandboxes.pool_stock import Holder, Shelf, Ticket
from sandboxes.sandbox import Sandbox

_ATTEMPTS = 3  # a sandbox may die between the moment at which it is taken and the one at which it is used


class GivesPlaces(Protocol):
    """What a place needs of its pool."""

    lull: Lull

    def enqueue(self, shelf: Shelf) -> Ticket:
        """Let a call wait for a sandbox that is made for it."""

    def free(self, place: Place) -> None:
        """Give back what a place took."""


class Place:
    """What one call has of the pool: a sandbox, or the right to one that is made for it."""

    def __init__(self, pool: GivesPlaces, shelf: Shelf, holder: Holder | None, charge_mib: int) -> None:
        self.charge_mib, self.tenant = charge_mib, shelf.kind.tenant
        self._pool, self._shelf, self._holder = pool, shelf, holder
        self._ticket = None if holder else pool.enqueue(shelf)
        self._left = False

    @property
    def ending(self) -> asyncio.Task[None] | None:
        """What lasts as long as its sandbox; None where it has none."""
        return self._holder.task if self._holder is not None else None

    async def sandbox(self) -> tuple[Sandbox, Nest | None]:
        """Wait for the sandbox, and get its nest with it.

        Raises:
            SandboxUnavailable: It could not be made.
        """
        for _ in range(_ATTEMPTS):
            if self._ticket is not None:
                self._holder = await self._ticket.got
                self._ticket = None
            holder = self._holder
            assert holder is not None, "a place has a sandbox or a ticket for one"
            if holder.is_fit and holder.sandbox is not None:
                return holder.sandbox, holder.nest
            holder.release()
            self._holder, self._ticket = None, self._pool.enqueue(self._shelf)
        raise SandboxUnavailable("three sandboxes in a row ended before they were used")

    async def let_calls_pass(self, sandbox: Sandbox) -> None:
        """Wait for a lull between calls, not long; leaving the place does not end the sandbox before."""
        if self._holder is not None:
            self._holder.may_linger = True
        await self._pool.lull.wait(sandbox)

    def leave(self) -> None:
        """Let the sandbox end. It does so behind the caller's back; a used one is ended by then."""
        if self._left:
            return
        self._left = True
        if self._ticket is not None:
            self._holder = self._ticket.drop()
        if self._holder is not None:
            self._holder.release()
        self._pool.free(self)
