"""Keys between claim and reservation, and those who wait for the call that has one.

Both live in the process: a claim that was never reserved promised nothing, so a restart forgets it. Which of
two tasks wins is decided here, one look-up a key at a time; what is durable is the store's.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

from broker.model import CallRecord, CallState
from broker.store.epochs import Restoration
from broker.store.options import StoreOptions
from broker.store.records import Claim, ClaimScope, StoreError
from broker.store.rules import UNFINISHED, KeyRow, judge_key


class Lookup(Protocol):
    """What the durable state knows of keys and calls."""

    @property
    def restoration(self) -> Restoration | None:
        """What the last restore left, if there was one."""

    async def find_key(self, scope: ClaimScope) -> tuple[KeyRow, CallRecord] | None:
        """Find a key that was reserved, and the call, without contents, that holds it or held it last.

        Raises:
            StaleEpoch: Another process has taken over, so that nobody here knows who holds what.
        """

    async def check_epoch(self) -> None:
        """See that this process may still write.

        Raises:
            StaleEpoch: Another process has taken over.
        """

    async def find_state(self, call_id: str) -> CallState | None:
        """Find a call's state."""


@dataclass(frozen=True, slots=True)
class _Holder:
    call_id: str
    fingerprint: str


class Keys:
    """The keys of one process on one store. Belongs to one event loop."""

    def __init__(self, options: StoreOptions, lookup: Lookup) -> None:
        self._options = options
        self._lookup = lookup
        self._holders: dict[ClaimScope, _Holder] = {}
        self._locks: WeakValueDictionary[ClaimScope, asyncio.Lock] = WeakValueDictionary()
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def claim(
        self, scope: ClaimScope, fingerprint: str, call_id: str, new_since: datetime | None
    ) -> Claim:
        """Take a key, or find who has it: see `Store.claim`."""
        lock = self._locks.setdefault(scope, asyncio.Lock())
        async with lock:
            holder = self._holders.get(scope)
            if holder is not None:
                await self._lookup.check_epoch()
                return Claim(won=False, earlier=self._placeholder(scope, holder))
            found = await self._lookup.find_key(scope)
            claim = judge_key(found[0] if found else None, self._options.clock(), self._options.retention)
            if claim.won and self._is_doubtful(found[0] if found else None, new_since):
                return Claim(won=False, attempt=claim.attempt, restored=True)
            if claim.won:
                self._holders[scope] = _Holder(call_id, fingerprint)
                return claim
            assert found is not None, "a key that is held has a call"
            return replace(claim, earlier=found[1])

    def _is_doubtful(self, key: KeyRow | None, new_since: datetime | None) -> bool:
        restoration = self._lookup.restoration
        return restoration is not None and restoration.doubts(key, new_since)

    async def give_up(self, scope: ClaimScope, call_id: str) -> None:
        """Give an unreserved key back: see `Store.release`."""
        if self.holds(scope, call_id):
            self.release(scope, call_id)
            await self._lookup.check_epoch()

    def release(self, scope: ClaimScope, call_id: str) -> None:
        """Forget a claim that became durable, or that nobody wants any more."""
        if self.holds(scope, call_id):
            del self._holders[scope]
            self.notify(call_id)

    def holds(self, scope: ClaimScope, call_id: str) -> bool:
        """Tell whether a call claimed this key and has not reserved it yet."""
        holder = self._holders.get(scope)
        return holder is not None and holder.call_id == call_id

    def check_held(self, scope: ClaimScope | None, call_id: str) -> None:
        """See that a key was claimed before it is reserved.

        Raises:
            StoreError: It was not, or another call claimed it.
        """
        if scope is not None and not self.holds(scope, call_id):
            raise StoreError(f"call {call_id}: reserves a key that it did not claim")

    def notify(self, call_id: str) -> None:
        """Wake who waits for a call."""
        for event in self._waiting.get(call_id, ()):
            event.set()

    def notify_all(self) -> None:
        """Wake everybody: the store closes."""
        for call_id in list(self._waiting):
            self.notify(call_id)

    async def wait(self, call_id: str, timeout_seconds: float) -> None:
        """Wait for a call's next change; one that has ended by now, or is unknown, changes no more."""
        limit = None if math.isinf(timeout_seconds) else timeout_seconds
        with self._watching(call_id) as changed, suppress(TimeoutError):
            async with asyncio.timeout(limit):
                if await self._may_change(call_id):
                    await changed.wait()

    async def _may_change(self, call_id: str) -> bool:
        if any(holder.call_id == call_id for holder in self._holders.values()):
            return True
        return await self._lookup.find_state(call_id) in UNFINISHED

    @contextmanager
    def _watching(self, call_id: str) -> Iterator[asyncio.Event]:
        """Listen before looking: a change between the look and the wait is not lost."""
        event = asyncio.Event()
        events = self._waiting.setdefault(call_id, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events and self._waiting.get(call_id) is events:
                del self._waiting[call_id]

    def _placeholder(self, scope: ClaimScope, holder: _Holder) -> CallRecord:
        """Describe a call that is still before its reservation."""
        return CallRecord(
            call_id=holder.call_id,
            tenant=scope.tenant,
            environment=scope.environment,
            agent=scope.agent,
            subject="",
            method=scope.method,
            tool_version="",
            effect=None,
            key=scope.key,
            fingerprint=holder.fingerprint,
            attempt=1,
            epoch=0,
            state=CallState.CLAIMED,
            started=self._options.clock(),
        )


class KeyedCalls(ABC):
    """What `Store` promises about keys: the same whatever keeps the calls."""

    _keys: Keys

    @abstractmethod
    async def find_key(self, scope: ClaimScope) -> tuple[KeyRow, CallRecord] | None:
        """Find a key that was reserved: see `Lookup`."""

    @abstractmethod
    async def get_call(self, tenant: str, call_id: str) -> CallRecord | None:
        """Read one call of a tenant."""

    async def claim(
        self, scope: ClaimScope, fingerprint: str, call_id: str, new_since: datetime | None = None
    ) -> Claim:
        """Take a key, or find who has it."""
        claim = await self._keys.claim(scope, fingerprint, call_id, new_since)
        if claim.earlier is None or claim.expired or claim.earlier.state in UNFINISHED:
            return claim
        return replace(claim, earlier=await self.get_call(scope.tenant, claim.earlier.call_id))

    async def release(self, scope: ClaimScope, call_id: str) -> None:
        """Give an unreserved key back."""
        await self._keys.give_up(scope, call_id)

    async def wait_for_change(self, call_id: str, timeout_seconds: float) -> None:
        """Wait for a call's next change."""
        await self._keys.wait(call_id, timeout_seconds)

    async def pinned_version(self, scope: ClaimScope) -> str:
        """Name the version that the call which holds a key ran with."""
        found = await self.find_key(scope)
        return "" if found is None or found[0].free else found[1].tool_version
