"""The part of the memory store that knows calls, keys, charges and leases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from broker.model import CallRecord, CallState, Charge, GrantUse, LeaseRecord, LiveLease, SandboxRecord
from broker.store.budgets import amounts_to_book, check_charges, merge_charges
from broker.store.cipher import PART_BYTES, KeptCall
from broker.store.epochs import Watch
from broker.store.keys import KeyedCalls, Keys
from broker.store.memory_part import MemoryPart
from broker.store.memory_state import Booking, MemoryLedger, MemoryState
from broker.store.options import StoreOptions
from broker.store.paging import call_position, clamp_page_size
from broker.store.records import AuditEvent, ClaimScope, Latest, Page, StoreError
from broker.store.rules import (
    ENDS,
    RUNNING,
    KeyRow,
    amend_call,
    check_attempt,
    check_new,
    check_reserved,
    check_state,
    count_use,
    end_call,
    find_new_ends,
    list_live,
    make_end_event,
    merge_leases,
    merge_sandboxes,
    resolve_call,
    scope_of,
)
from broker.workflow_records import Imprint


class MemoryCalls(KeyedCalls, MemoryPart):
    """Calls, as `Store` promises them."""

    def __init__(self, options: StoreOptions, state: MemoryState, watch: Watch | None) -> None:
        super().__init__(options, state, watch)
        self._keys = Keys(options, self)
        self._begun: set[str] = set()

    async def find_key(self, scope: ClaimScope) -> tuple[KeyRow, CallRecord] | None:
        """Find a key that was reserved, and its call without contents."""
        await self._begin_write()
        if scope not in self.state.keys:
            return None
        key, call_id = self.state.keys[scope]
        return key, self.state.calls[call_id].call

    async def find_state(self, call_id: str) -> CallState | None:
        """Find a call's state."""
        await self._begin_read()
        kept = self.state.calls.get(call_id)
        return kept.call.state if kept else None

    async def reserve(
        self,
        call: CallRecord,
        scope: ClaimScope | None,
        charges: Sequence[Charge],
        audit: AuditEvent,
        imprint: Imprint | None = None,
    ) -> None:
        """Commit call, key, charges and audit."""
        kept = await self._sealing.seal_new(call)
        self._keys.check_held(scope, call.call_id)
        check_reserved(call, scope)
        await self._begin_write()
        self._check_absent(call)
        if scope is not None:
            key, _ = self.state.keys.get(scope, (None, ""))
            check_attempt(key, call)
        now = self._options.clock()
        bookings = self._book(call, merge_charges(charges), now)
        self._append(audit)
        if scope is not None:
            row = KeyRow(call.attempt, now, free=False, epoch=self.epoch.number)
            self.state.keys[scope] = row, call.call_id
            self._keys.release(scope, call.call_id)
        self._add(kept)
        self._leave(imprint)
        self.state.bookings.extend(bookings)
        if call.grant_id:
            name = call.tenant, call.environment, call.grant_id, call.agent, call.method
            self.state.uses[name] = count_use(self.state.uses.get(name), call)
        if call.state is CallState.DISPATCHED:
            self._begun.add(call.call_id)
        self._keys.notify(call.call_id)

    def _book(self, call: CallRecord, charges: Sequence[Charge], now: datetime) -> Sequence[Booking]:
        place = call.tenant, call.environment
        mine = [one for one in self.state.bookings if (one.tenant, one.environment) == place]
        check_charges(charges, MemoryLedger(mine), now)
        return [
            Booking(*place, budget, now, call.call_id, amount)
            for budget, amount in amounts_to_book(charges).items()
        ]

    async def give_back(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of which nothing ran; charges and key are free."""
        kept = await self._sealing.seal_end(call)
        self._begun.discard(call.call_id)
        await self._begin_write()
        stored = self._stored(call.call_id)
        check_state(call.call_id, self._own_state(stored), RUNNING)
        self._end(replace(kept, call=end_call(stored, kept.call, (CallState.FAILED,))), audit)
        self._free(call.call_id, with_charges=True)

    async def dispatch(
        self, call_id: str, leases: Sequence[LeaseRecord], sandboxes: Sequence[SandboxRecord] = ()
    ) -> None:
        """Commit the intent to run, where the reservation has not."""
        begun = call_id in self._begun
        if begun and not leases:
            return
        await self._begin_write()
        stored = self._stored(call_id)
        check_state(call_id, self._own_state(stored), RUNNING if begun else (CallState.RESERVED,))
        assert stored is not None, "a call with a state is there"
        dispatched = replace(
            stored,
            state=CallState.DISPATCHED,
            leases=merge_leases(stored.leases, leases),
            sandboxes=merge_sandboxes(stored.sandboxes, sandboxes),
        )
        self._append(*find_new_ends(stored, dispatched))
        self._put(dispatched)
        self._keys.notify(call_id)

    async def complete(
        self,
        call: CallRecord,
        audit: AuditEvent,
        *,
        frees_key: bool = False,
        behind: Latest | None = None,
        imprint: Imprint | None = None,
    ) -> None:
        """Commit the end of a dispatched call."""
        kept = await self._sealing.seal_end(call)
        self._begun.discard(call.call_id)
        await self._begin_write()
        if behind is not None:
            kept = replace(kept, call=replace(kept.call, sandboxes=tuple(behind())))
        stored = self._stored(call.call_id)
        check_state(call.call_id, self._own_state(stored), (CallState.DISPATCHED,))
        self._end(replace(kept, call=end_call(stored, kept.call, ENDS)), audit)
        self._leave(imprint)
        if frees_key:
            self._free(call.call_id, with_charges=False)

    async def refuse(self, call: CallRecord, audit: AuditEvent) -> None:
        """Record a refused call."""
        check_new(call, CallState.REFUSED, None)
        kept = await self._sealing.seal_new(call)
        await self._begin_write()
        self._check_absent(call)
        self._append(audit)
        self._add(kept)

    async def lease_ended(self, lease_id: str, at: datetime) -> None:
        """Note that a lease's end was confirmed; the first time stays."""
        await self._begin_write()
        for live in list_live(self._records()):
            if live.lease.lease_id == lease_id:
                self._end_lease(live, at)

    def _end_lease(self, live: LiveLease, at: datetime) -> None:
        call, dead = live.call, replace(live.lease, confirmed_dead=at)
        self._append(make_end_event(call.tenant, call.environment, call.call_id, dead))
        leases = tuple(dead if lease is live.lease else lease for lease in call.leases)
        self._put(replace(call, leases=leases))

    async def amend(self, call: CallRecord) -> None:
        """Replace what was known only after the end."""
        kept = await self._sealing.seal_end(replace(call, result=None))
        await self._begin_write()
        self._put(amend_call(self._stored(call.call_id), kept.call))
        contents = replace(self.state.calls[call.call_id].contents, tool_log=kept.contents.tool_log)
        self.state.calls[call.call_id] = replace(self.state.calls[call.call_id], contents=contents)

    async def live_leases(self, tenant: str = "") -> Sequence[LiveLease]:
        """List leases whose end is not confirmed, with their calls."""
        await self._begin_read()
        return list_live(call for call in self._records() if tenant in ("", call.tenant))

    async def grant_uses(self, tenant: str) -> Sequence[GrantUse]:
        """Count what each grant of a tenant allowed."""
        await self._begin_read()
        return [use for name, use in self.state.uses.items() if name[0] == tenant]

    async def owed_leases(self) -> Sequence[tuple[str, LeaseRecord]]:
        """List leases whose end is not confirmed."""
        await self._begin_read()
        return [
            (call.call_id, lease)
            for call in self._records()
            for lease in call.leases
            if lease.confirmed_dead is None
        ]

    async def unfinished(self) -> Sequence[CallRecord]:
        """List running calls of earlier epochs."""
        await self._begin_read()
        number = self.epoch.number
        return [call for call in self._records() if call.state in RUNNING and call.epoch < number]

    async def adopt(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call of an earlier epoch."""
        kept = await self._sealing.seal_end(call)
        await self._begin_write()
        stored = self._stored(call.call_id)
        foreign = stored.state if stored and stored.epoch < self.epoch.number else None
        check_state(call.call_id, foreign, RUNNING)
        ended = end_call(stored, kept.call, (CallState.FAILED, CallState.IN_DOUBT))
        self._end(replace(kept, call=ended), audit)
        if call.state is CallState.FAILED:
            self._free(call.call_id, with_charges=foreign is CallState.RESERVED)

    async def in_doubt(self, limit: int = 100) -> Sequence[CallRecord]:
        """List the oldest calls in doubt."""
        await self._begin_read()
        found = [kept for kept in self.state.calls.values() if kept.call.state is CallState.IN_DOUBT]
        found.sort(key=lambda kept: call_position(kept.call))
        return await self._sealing.open_all(found[:limit])

    async def resolve(self, call: CallRecord, audit: AuditEvent) -> None:
        """End a call in doubt."""
        kept = await self._sealing.seal_end(call)
        await self._begin_write()
        resolved = resolve_call(self._stored(call.call_id), kept.call)
        self._end(replace(kept, call=resolved), audit)
        if resolved.state is CallState.FAILED:
            self._free(call.call_id, with_charges=True)

    async def get_call(self, tenant: str, call_id: str) -> CallRecord | None:
        """Read one call of a tenant."""
        await self._begin_read()
        kept = self.state.calls.get(call_id)
        return await self._sealing.open(kept) if kept and kept.call.tenant == tenant else None

    async def read_artefact(self, tenant: str, call_id: str, position: int, offset: int) -> bytes:
        """Read a part of an artefact."""
        await self._begin_read()
        part, begin = divmod(offset, PART_BYTES)
        kept = self.state.calls.get(call_id)
        if kept is None or kept.call.tenant != tenant:
            return b""
        parts = [one.parts for one in kept.contents.artefacts[position : position + 1]]
        sealed = parts[0][part] if parts and part < len(parts[0]) else None
        return (await self._sealing.open_part(kept.call, position, part, sealed))[begin:]

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
        before = self._tokens.read(binding, page_token) if page_token else None
        await self._begin_read()
        found = [
            call
            for call in self._records()
            if call.tenant == tenant
            and agent in ("", call.agent)
            and method in ("", call.method)
            and state in (None, call.state)
            and (before is None or call_position(call) < before)
        ]
        found.sort(key=call_position, reverse=True)
        return self._tokens.cut(binding, found, clamp_page_size(page_size), call_position)

    # --- the records -------------------------------------------------------------------------------------
    def _records(self) -> Iterable[CallRecord]:
        return (kept.call for kept in self.state.calls.values())

    def _stored(self, call_id: str) -> CallRecord | None:
        kept = self.state.calls.get(call_id)
        return kept.call if kept else None

    def _add(self, kept: KeptCall) -> None:
        call = replace(kept.call, epoch=self.epoch.number, leases=())
        self.state.calls[call.call_id] = replace(kept, call=call)

    def _put(self, call: CallRecord) -> None:
        """Replace a record; what it holds stays."""
        self.state.calls[call.call_id] = replace(self.state.calls[call.call_id], call=call)

    def _check_absent(self, call: CallRecord) -> None:
        if call.call_id in self.state.calls:
            raise StoreError(f"call {call.call_id}: is recorded already")

    def _own_state(self, stored: CallRecord | None) -> CallState | None:
        return stored.state if stored and stored.epoch == self.epoch.number else None

    def _end(self, end: KeptCall, audit: AuditEvent) -> None:
        call_id = end.call.call_id
        self._append(audit, *find_new_ends(self.state.calls[call_id].call, end.call))
        self.state.calls[call_id] = self.state.calls[call_id].ended(end)
        self._keys.notify(call_id)

    def _free(self, call_id: str, *, with_charges: bool) -> None:
        call = self.state.calls[call_id].call
        scope = scope_of(call)
        if scope is not None:
            key, _ = self.state.keys[scope]
            row = replace(key, attempt=call.attempt, free=True, epoch=self.epoch.number)
            self.state.keys[scope] = row, call_id
        if with_charges:
            self.state.bookings = [one for one in self.state.bookings if one.call_id != call_id]
