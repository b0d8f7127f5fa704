"""The ends of leases that are owed: tried at once, tried again with back-off, never forgotten.

Rules:
1. A lease is written down before it is used, and stays owed until look-up says that it is dead. The store is
   the queue that outlives this process: what an earlier run left owed is taken up at start.
2. Each lease has its own back-off, doubled with each try and scattered: one that will not end delays no other
   one, and those that failed together do not come back together.
3. How often an end was tried, and what was wrong the last time, is kept for those who look at it.
4. What the store still calls owed although nobody here tries it, is taken up again: a death that was noted
   before the call's own end was written down found nothing to note it at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from broker.model import CallState, LeaseRecord, LiveLease
from broker.store.protocol import Store
from broker.store.records import StoreError
from credentials.errors import EndNotConfirmed
from credentials.lease import LeaseIds, OwedLease

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# The part of a pause that chance takes away, so that leases that failed together spread out.
SCATTER = 0.5
LAST_TRY_SECONDS = 10.0
# A call's answer waits this long for the ends of its leases; a Vault that stalls does not keep it longer.
PATIENCE_SECONDS = 3.0
# How often the store is asked for what is owed and nobody tries.
SWEEP_SECONDS = 30.0
# Later tries at a time: a thousand leases that will not end leave Vault to those whose calls end now.
RETRIES_AT_ONCE = 32

_RUNNING = frozenset({CallState.RESERVED, CallState.DISPATCHED})


class Ender(Protocol):
    """What can end a lease and confirm it."""

    async def end(self, lease: LeaseIds) -> datetime:
        """End a lease; return when its end was confirmed."""


@dataclass(slots=True)
class Debt:
    """A lease whose end is owed.

    Attributes:
        tries: How often its end was tried in vain.
        last_error: What was wrong the last time.
    """

    call_id: str
    lease: LeaseRecord | OwedLease
    tries: int = 0
    last_error: str = ""
    _attempt: asyncio.Task[datetime | None] | None = field(default=None, repr=False)
    _timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    _queued: asyncio.Task[None] | None = field(default=None, repr=False)


class Debts:
    """Ends leases and keeps those whose end is not confirmed."""

    def __init__(self, vault: Ender, store: Store) -> None:
        self._vault = vault
        self._store = store
        self._owed: dict[str, Debt] = {}
        self._retries = asyncio.Semaphore(RETRIES_AT_ONCE)
        self._sweeping: asyncio.Task[None] | None = None
        self._paying = False

    @property
    def count(self) -> int:
        """How many leases are owed now."""
        return len(self._owed)

    @property
    def owed(self) -> Collection[Debt]:
        """Every lease whose end is owed now."""
        return tuple(self._owed.values())

    async def start(self) -> None:
        """Take up what earlier runs left owed, and begin to pay.

        Raises:
            StoreError: It cannot be read.
        """
        self._paying = True
        for call_id, lease in await self._store.owed_leases():
            self._remember(call_id, lease)
        for debt in self.owed:
            self._schedule(debt)
        self._sweeping = asyncio.create_task(self._sweep_for_ever(), name="debts")

    async def close(self) -> None:
        """Try each debt once more and stop; the end of the session ends what is left."""
        self._paying = False
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        for debt in self.owed:
            _stop_timer(debt)
            if debt._queued is not None:
                debt._queued.cancel()
        running = [self._attempt(debt) for debt in self.owed]
        if running:
            _, late = await asyncio.wait(running, timeout=LAST_TRY_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def end(self, call_id: str, lease: LeaseRecord | OwedLease) -> datetime | None:
        """End a lease now; None when its end is not confirmed soon, and then it stays owed."""
        attempt = self._attempt(self._remember(call_id, lease))
        done, _ = await asyncio.wait((attempt,), timeout=PATIENCE_SECONDS)
        return attempt.result() if done else None

    def owe(self, call_id: str, leases: Sequence[LeaseRecord | OwedLease]) -> None:
        """Take over leases that a failed or cancelled mint could not end itself.

        They are paid a little later: their call's end, which writes them down, comes first, so that the note
        of their death finds them.
        """
        for lease in leases:
            self._schedule(self._remember(call_id, lease))

    def _remember(self, call_id: str, lease: LeaseRecord | OwedLease) -> Debt:
        return self._owed.setdefault(lease.lease_id, Debt(call_id, lease))

    def _schedule(self, debt: Debt) -> None:
        """Try a debt again after its pause."""
        _stop_timer(debt)
        if self._paying and debt.lease.lease_id in self._owed:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(debt.tries, 10), LONGEST_PAUSE_SECONDS)
            pause *= 1 - SCATTER * random.random()  # noqa: S311 - nothing secret hangs on it
            debt._timer = asyncio.get_running_loop().call_later(pause, self._queue, debt)

    def _queue(self, debt: Debt) -> None:
        """Have a debt wait for a place among the later tries; whoever asks for its end now does not wait."""
        if debt._queued is None or debt._queued.done():
            debt._queued = asyncio.create_task(self._try_in_turn(debt))

    async def _try_in_turn(self, debt: Debt) -> None:
        async with self._retries:
            if debt.lease.lease_id in self._owed:
                await asyncio.wait((self._attempt(debt),))

    def _attempt(self, debt: Debt) -> asyncio.Task[datetime | None]:
        """Begin to try, or join the try that is under way."""
        if debt._attempt is None or debt._attempt.done():
            debt._attempt = asyncio.create_task(self._try(debt))
        return debt._attempt

    async def _try(self, debt: Debt) -> datetime | None:
        _stop_timer(debt)
        dead = await self._end(debt)
        if dead is None:
            self._schedule(debt)
        else:
            self._owed.pop(debt.lease.lease_id, None)
        return dead

    async def _end(self, debt: Debt) -> datetime | None:
        try:
            dead = await self._vault.end(debt.lease)
            await self._store.lease_ended(debt.lease.lease_id, dead)
            return dead
        except (EndNotConfirmed, StoreError) as error:
            debt.last_error = str(error)
            log.warning("lease end owed", extra={"call_id": debt.call_id, "cause": str(error)})
        except Exception as error:  # whatever it is, the lease stays owed and the others are paid
            debt.last_error = f"the broker failed: {type(error).__name__}"
            log.exception("lease end owed", extra={"call_id": debt.call_id})
        debt.tries += 1
        return None

    async def _sweep_for_ever(self) -> None:
        """Take up what nobody tries; only at the second look, because one may end while the store is read."""
        seen: set[str] = set()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                idle = [live for live in await self._store.live_leases() if self._is_idle(live)]
                for live in idle:
                    if live.lease.lease_id in seen:
                        self.owe(live.call.call_id, (live.lease,))
                seen = {live.lease.lease_id for live in idle}
            except StoreError as error:
                log.warning("owed leases not listed", extra={"cause": str(error)})

    def _is_idle(self, live: LiveLease) -> bool:
        return live.call.state not in _RUNNING and live.lease.lease_id not in self._owed


def _stop_timer(debt: Debt) -> None:
    if debt._timer is not None:
        debt._timer.cancel()
        debt._timer = None
