"""A store that keeps everything in the process's memory: for tests, and for nothing else.

It forgets with the process, and promises otherwise what SQLite promises: the same contract suite runs on both.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from broker.audit import START, Anchor, seal
from broker.model import CallRecord, CallState, Charge, LeaseRecord
from broker.store.budgets import amounts_to_book, check_charges, merge_charges
from broker.store.keys import Keys
from broker.store.options import StoreOptions
from broker.store.paging import PageTokens, Position, clamp_page_size
from broker.store.protocol import (
    AuditEvent,
    AuditRecord,
    BaseChanged,
    Claim,
    ClaimScope,
    Epoch,
    GrantFiles,
    Page,
    StaleEpoch,
    StoreError,
    VersionExists,
    VersionRow,
)
from broker.store.rules import (
    ENDS,
    RUNNING,
    KeyRow,
    amend_call,
    check_attempt,
    check_new,
    check_state,
    end_call,
    judge_key,
    merge_leases,
    scope_of,
)

_LAST: Position = (1 << 62, "￿", "￿")


@dataclass(frozen=True, slots=True)
class _Booking:
    tenant: str
    environment: str
    budget: tuple[str, str]
    at: datetime
    call_id: str
    amount: int


@dataclass(slots=True)
class MemoryState:
    """What would be on the disk. Give it to a second `MemoryStore` to play a restart, or a take-over."""

    installation: str = field(default_factory=lambda: secrets.token_hex(8))
    page_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    epoch: int = 0
    calls: dict[str, CallRecord] = field(default_factory=dict)
    keys: dict[ClaimScope, tuple[KeyRow, str]] = field(default_factory=dict)
    bookings: list[_Booking] = field(default_factory=list)
    versions: dict[tuple[str, str, str], VersionRow] = field(default_factory=dict)
    aliases: dict[tuple[str, str, str], str] = field(default_factory=dict)
    grants: dict[str, GrantFiles] = field(default_factory=dict)
    audit: list[AuditRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _MemoryLedger:
    bookings: Sequence[_Booking]

    def entries(self, charge: Charge, since: datetime) -> Iterable[tuple[datetime, int]]:
        budget = charge.grant_id, charge.limit.unit
        found = ((one.at, one.amount) for one in self.bookings if one.budget == budget and one.at > since)
        return sorted(found)

    def used(self, charge: Charge, since: datetime) -> int:
        return sum(amount for _, amount in self.entries(charge, since))


class MemoryStore:
    """Implements `Store` on dictionaries. See there for what each method promises."""

    def __init__(self, options: StoreOptions | None = None, state: MemoryState | None = None) -> None:
        self._options = options or StoreOptions(secrets.token_bytes(32), "memory")
        self.state = state or MemoryState()
        self.state.epoch += 1
        self.epoch = Epoch(self.state.installation, self.state.epoch)
        self._tokens = PageTokens(self.state.page_key)
        self._keys = Keys(self._options, self)
        self._closed = False

    async def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True
        self._keys.notify_all()

    # --- calls -------------------------------------------------------------------------------------------
    async def claim(self, scope: ClaimScope, fingerprint: str, call_id: str) -> Claim:
        """Take a key, or find who has it."""
        return await self._keys.claim(scope, fingerprint, call_id)

    async def release(self, scope: ClaimScope, call_id: str) -> None:
        """Give an unreserved key back."""
        self._keys.release(scope, call_id)

    async def wait_for_change(self, call_id: str, timeout_seconds: float) -> None:
        """Wait for a call's next change."""
        await self._keys.wait(call_id, timeout_seconds)

    async def find_key(self, scope: ClaimScope) -> tuple[KeyRow, CallRecord] | None:
        """Find a key that was reserved, and its call."""
        await self._begin_read()
        if scope not in self.state.keys:
            return None
        key, call_id = self.state.keys[scope]
        return key, self.state.calls[call_id]

    async def find_state(self, call_id: str) -> CallState | None:
        """Find a call's state."""
        await self._begin_read()
        call = self.state.calls.get(call_id)
        return call.state if call else None

    async def reserve(
        self, call: CallRecord, scope: ClaimScope | None, charges: Sequence[Charge], audit: AuditEvent
    ) -> None:
        """Commit call, key, charges and audit."""
        self._keys.check_held(scope, call.call_id)
        check_new(call, CallState.RESERVED, scope)
        await self._begin_write()
        self._check_absent(call)
        if scope is not None:
            key, _ = self.state.keys.get(scope, (None, ""))
            check_attempt(key, call)
        now = self._options.clock()
        bookings = self._book(call, merge_charges(charges), now)
        self._append(audit)
        if scope is not None:
            self.state.keys[scope] = KeyRow(call.attempt, now, free=False), call.call_id
            self._keys.release(scope, call.call_id)
        self.state.calls[call.call_id] = replace(call, epoch=self.epoch.number, leases=())
        self.state.bookings.extend(bookings)
        self._keys.notify(call.call_id)

    def _book(self, call: CallRecord, charges: Sequence[Charge], now: datetime) -> Sequence[_Booking]:
        place = call.tenant, call.environment
        mine = [one for one in self.state.bookings if (one.tenant, one.environment) == place]
        check_charges(charges, _MemoryLedger(mine), now)
        return [
            _Booking(*place, budget, now, call.call_id, amount)
            for budget, amount in amounts_to_book(charges).items()
        ]

    async def give_back(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of which nothing ran; charges and key are free."""
        await self._begin_write()
        stored = self.state.calls.get(call.call_id)
        check_state(call.call_id, self._own_state(stored), RUNNING)
        self._end(end_call(stored, call, (CallState.FAILED,)), audit)
        self._free(call.call_id, with_charges=True)

    async def pinned_version(self, scope: ClaimScope) -> str:
        """Name the version that the call which holds a key ran with."""
        found = await self.find_key(scope)
        return "" if found is None or found[0].free else found[1].tool_version

    async def dispatch(self, call_id: str, leases: Sequence[LeaseRecord]) -> None:
        """Commit the intent to run."""
        await self._begin_write()
        stored = self.state.calls.get(call_id)
        check_state(call_id, self._own_state(stored), (CallState.RESERVED,))
        assert stored is not None, "a call with a state is there"
        merged = merge_leases(stored.leases, leases)
        self.state.calls[call_id] = replace(stored, state=CallState.DISPATCHED, leases=merged)
        self._keys.notify(call_id)

    async def complete(self, call: CallRecord, audit: AuditEvent) -> None:
        """Commit the end of a dispatched call."""
        await self._begin_write()
        stored = self.state.calls.get(call.call_id)
        check_state(call.call_id, self._own_state(stored), (CallState.DISPATCHED,))
        self._end(end_call(stored, call, ENDS), audit)

    async def refuse(self, call: CallRecord, audit: AuditEvent) -> None:
        """Record a refused call."""
        check_new(call, CallState.REFUSED, None)
        await self._begin_write()
        self._check_absent(call)
        self._append(audit)
        self.state.calls[call.call_id] = replace(call, epoch=self.epoch.number, leases=())

    async def lease_ended(self, lease_id: str, at: datetime) -> None:
        """Note that a lease's end was confirmed; the first time stays."""
        await self._begin_write()
        for call in list(self.state.calls.values()):
            leases = tuple(
                replace(lease, confirmed_dead=lease.confirmed_dead or at)
                if lease.lease_id == lease_id
                else lease
                for lease in call.leases
            )
            self.state.calls[call.call_id] = replace(call, leases=leases)

    async def amend(self, call: CallRecord) -> None:
        """Replace what was known only after the end."""
        await self._begin_write()
        self.state.calls[call.call_id] = amend_call(self.state.calls.get(call.call_id), call)

    async def owed_leases(self) -> Sequence[tuple[str, LeaseRecord]]:
        """List leases whose end is not confirmed."""
        await self._begin_read()
        return [
            (call.call_id, lease)
            for call in self.state.calls.values()
            for lease in call.leases
            if lease.confirmed_dead is None
        ]

    async def unfinished(self) -> Sequence[CallRecord]:
        """List running calls of earlier epochs."""
        await self._begin_read()
        calls = self.state.calls.values()
        return [call for call in calls if call.state in RUNNING and call.epoch < self.epoch.number]

    async def adopt(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of an earlier epoch."""
        await self._begin_write()
        stored = self.state.calls.get(call.call_id)
        foreign = stored.state if stored and stored.epoch < self.epoch.number else None
        check_state(call.call_id, foreign, RUNNING)
        self._end(end_call(stored, call, (CallState.FAILED, CallState.IN_DOUBT)), audit)
        if call.state is CallState.FAILED:
            self._free(call.call_id, with_charges=foreign is CallState.RESERVED)

    async def get_call(self, tenant: str, call_id: str) -> CallRecord | None:
        """Read one call of a tenant."""
        await self._begin_read()
        call = self.state.calls.get(call_id)
        return call if call and call.tenant == tenant else None

    async def list_calls(
        self,
        tenant: str,
        *,
        agent: str = "",
        method: str = "",
        state: CallState | None = None,
        page_size: int = 50,
        page_token: str = "",
    ) -> Page[CallRecord]:
        """List calls of a tenant, newest first."""
        binding = ("calls", tenant, agent, method, state or "")
        before = self._tokens.read(binding, page_token) if page_token else _LAST
        await self._begin_read()
        found = sorted(
            (call_position(call), call)
            for call in self.state.calls.values()
            if call.tenant == tenant
            and agent in ("", call.agent)
            and method in ("", call.method)
            and state in (None, call.state)
        )
        return found
