"""The ends of leases that are owed: tried at once, tried again with back-off, never forgotten.

A lease is written down before it is used and stays owed until look-up says that it is dead. What an earlier
run of the broker left owed is taken up at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from broker.model import LeaseRecord
from broker.store.protocol import Store, StoreError
from credentials.errors import EndNotConfirmed
from credentials.lease import LeaseIds

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LAST_TRY_SECONDS = 10.0
# A call's answer waits this long for the ends of its leases; a Vault that stalls does not keep it longer.
PATIENCE_SECONDS = 3.0


class Ender(Protocol):
    """What can end a lease and confirm it."""

    async def end(self, lease: LeaseIds) -> datetime:
        """End a lease; return when its end was confirmed."""


class Debts:
    """Ends leases and keeps those whose end is not confirmed."""

    def __init__(self, vault: Ender, store: Store) -> None:
        self._vault = vault
        self._store = store
        self._owed: dict[str, tuple[str, LeaseIds]] = {}
        self._trying: dict[str, asyncio.Task[datetime | None]] = {}
        self._fresh: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """How many leases are owed now."""
        return len(self._owed)

    async def start(self) -> None:
        """Take up what earlier runs left owed, and begin to pay."""
        for call_id, lease in await self._store.owed_leases():
            self._remember(call_id, lease)
        self._task = asyncio.create_task(self._pay_for_ever(), name="debts")

    async def close(self) -> None:
        """Try each debt once more and stop; the end of the session ends what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_TRY_SECONDS):
                await asyncio.gather(*self._trying.values())
                self._fresh.clear()
                await self._pay()

    async def end(self, call_id: str, lease: LeaseRecord) -> datetime | None:
        """End a lease now; None when its end is not confirmed soon, and then it stays owed."""
        self._remember(call_id, lease)
        task = self._trying[lease.lease_id] = asyncio.create_task(self._try(lease.lease_id))
        task.add_done_callback(lambda _: self._trying.pop(lease.lease_id, None))
        done, _ = await asyncio.wait((task,), timeout=PATIENCE_SECONDS)
        return task.result() if done else None

    async def owe(self, call_id: str, leases: Sequence[LeaseIds]) -> None:
        """Take over leases that a failed mint could not end itself.

        They are paid a little later: their call's end, which writes them down, comes first, so that the note
        of their death finds them.
        """
        for lease in leases:
            self._fresh[lease.lease_id] = time.monotonic() + FIRST_PAUSE_SECONDS
            self._remember(call_id, lease)

    def _remember(self, call_id: str, lease: LeaseIds) -> None:
        self._owed[lease.lease_id] = (call_id, lease)
        self._wake.set()

    async def _try(self, key: str) -> datetime | None:
        if key not in self._owed:
            return None  # another try was faster
        call_id, lease = self._owed[key]
        try:
            dead = await self._vault.end(lease)
            await self._store.lease_ended(lease.lease_id, dead)
        except (EndNotConfirmed, StoreError) as error:
            log.warning("lease end owed", extra={"call_id": call_id, "cause": str(error)})
            return None
        except Exception:  # whatever it is, the lease stays owed and the others are paid
            log.exception("lease end owed", extra={"call_id": call_id})
            return None
        self._owed.pop(key, None)
        return dead

    async def _pay(self) -> None:
        now = time.monotonic()
        self._fresh = {key: due for key, due in self._fresh.items() if due > now}
        keys = self._owed.keys() - self._trying.keys() - self._fresh.keys()
        await asyncio.gather(*(self._try(key) for key in keys))

    async def _pay_for_ever(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._wake.wait()
            await asyncio.sleep(pause)
            await self._pay()
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS) if self._owed else FIRST_PAUSE_SECONDS
            if not self._owed:
                self._wake.clear()
